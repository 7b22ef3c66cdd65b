"""What load found out about devices, told to the edge that scores them.

Load sees values and the edge does not; only the edge scores, so that a device has one score. What load noted is read by
the device's own edge with its poll of `changes`: one change for all that was noted at once, which names no device,
refuses nobody and lifts nothing. It is no decision, so the audit has no line of it. Each is noted once, whatever load
repeats after a crash, and forgotten after a day: a score has faded by then, and the evidence is kept elsewhere.
What a person's decision forgives at the edge, load learns here: else it would take for told what no longer counts.

What is suspicious is decided by load; what a suspicion weighs, by the edge's policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Row, delete, func, insert, select

from fleetgate.control.schema import decisions, suspicions
from fleetgate.control.store import SUSPICION, Store
from fleetgate.scoring import FROM_LOAD

KEPT_MS = 24 * 3600 * 1000
NOTED_AT_ONCE = 10_000  # rows of one call: 0.2 s of the write lock, which a person's decision waits for
_NOTER = "load"


class Suspicion(Struct, frozen=True):
    """`count` events of `signal` (one of `scoring.FROM_LOAD`) by a device, the last at `at_ms` (Unix ms), in messages
    that the edge `edge_id` received. `detail` tells a person what was seen: words and numbers, JSON-able, small."""

    tenant: str
    device_id: str
    edge_id: str
    signal: str
    count: int
    at_ms: int
    detail: dict[str, Any]


def note_suspicions(store: Store, spool: str, segment: int, found: Sequence[Suspicion]) -> int:
    """Notes what is not noted yet, by (spool, segment, device, signal); returns how many those are.

    `spool` and `segment` say where it was found, for load that repeats itself; a finder that looks at more than a
    segment gives a name and a number of its own. What waited of a device while control was away is one. Raises
    ValueError for a signal that load does not raise, and for more than NOTED_AT_ONCE; ControlAway.
    """
    strange = {suspicion.signal for suspicion in found} - FROM_LOAD
    if strange or len(found) > NOTED_AT_ONCE:
        raise ValueError(
            f"{len(found)} suspicions of {sorted(strange)}: load raises {sorted(FROM_LOAD)}, a few at once"
        )
    if not found:
        return 0
    with store.write(_NOTER) as write:
        write.execute(delete(suspicions).where(suspicions.c.noted_at_ms < write.now_ms - KEPT_MS))
        columns = (suspicions.c.tenant, suspicions.c.device_id, suspicions.c.signal)
        there = select(*columns).where(suspicions.c.spool == spool, suspicions.c.segment == segment)
        noted = {tuple(row) for row in write.rows(there)}
        new: dict[tuple[str, ...], Suspicion] = {}
        for one in found:
            key = (one.tenant, one.device_id, one.signal)
            new[key] = _together(new[key], one) if key in new else one
        rows = [one for key, one in new.items() if key not in noted]
        if not rows:
            return 0
        origin = {
            "revision": write.announce(SUSPICION),
            "spool": spool,
            "segment": segment,
            "noted_at_ms": write.now_ms,
        }
        write.execute(
            insert(suspicions),
            [
                msgspec.structs.asdict(one) | {"detail": msgspec.json.encode(one.detail).decode()} | origin
                for one in rows
            ],
        )
    return len(rows)


def _together(first: Suspicion, second: Suspicion) -> Suspicion:
    """Both, as the later of them with the count of both."""
    later = max(first, second, key=lambda one: one.at_ms)
    return msgspec.structs.replace(later, count=first.count + second.count)


def suspicions_of(store: Store, revisions: Sequence[int], edge_id: str) -> list[Suspicion]:
    """Those that one of these changes told, and that concern this edge. Raises ControlAway."""
    if not revisions:
        return []
    concern = suspicions.c.revision.in_(revisions), suspicions.c.edge_id == edge_id
    found = store.rows(select(suspicions).where(*concern).order_by(suspicions.c.suspicion_id))
    return [_suspicion(row) for row in found]


def decided_since(store: Store, at_ms: int) -> dict[tuple[str, str], int]:
    """When a person last decided on each device (tenant, device id), of those with a decision since `at_ms` (Unix ms).
    What was told of a device up to then its edge has forgiven. Raises ControlAway."""
    columns = decisions.c.tenant, decisions.c.device_id
    last = select(*columns, func.max(decisions.c.at_ms).label("at_ms")).where(decisions.c.at_ms >= at_ms)
    return {(row.tenant, row.device_id): row.at_ms for row in store.rows(last.group_by(*columns))}


def _suspicion(row: Row[Any]) -> Suspicion:
    told = dict(row._mapping)  # a row's own `count` is the method of a tuple
    told["detail"] = msgspec.json.decode(told["detail"])
    return Suspicion(**{name: told[name] for name in Suspicion.__struct_fields__})
