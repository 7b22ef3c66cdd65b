"""Alerts of the edges, in the records: each is opened once and closed once, whatever load repeats.

Decides which word about an alert is news, and that what the breaker does and what a person closes stands in the audit.
What is an alert, and when it is over, is decided by the edge (`accept.breaker`, `accept.issuertrouble`). But an edge
may be gone for good, and a CA may end with nobody below it: then a person says that it is over. Of a hold only where
the edge is gone: what is in force is not to be out of sight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec import Struct
from sqlalchemy import and_, insert, select, update

from fleetgate.control.reason import check_reason
from fleetgate.control.schema import edge_alerts
from fleetgate.control.store import Store
from fleetgate.errors import Conflict, NotFound

HOLD = "breaker"
BREAKER_KINDS = (HOLD, "breaker_spent")


class EdgeAlert(Struct, frozen=True):
    """An alert of an edge. `cohort` is empty for all of the tenant; `closed_at_ms` is None while it is open."""

    kind: str
    tenant: str
    cohort: str
    opened_at_ms: int
    closed_at_ms: int | None
    detail: dict[str, str | int | float]


class Said(Struct, frozen=True, kw_only=True):
    """A word of an edge about an alert: `state` is open or closed. Of one `key` at most one is open."""

    key: str
    state: str
    at_ms: int
    kind: str
    tenant: str
    cohort: str = ""
    detail: Mapping[str, str | int | float] = {}


def alert_id(key: str, opened_at_ms: int) -> str:
    """As people are shown it: of one key each opening is an alert of its own."""
    return hashlib.sha256(f"{key}\n{opened_at_ms}".encode()).hexdigest()[:16]


def list_alerts(store: Store, *, closed: bool = False) -> list[EdgeAlert]:
    """Those that are open, with `closed` all of them, newest first."""
    query = select(edge_alerts).order_by(edge_alerts.c.opened_at_ms.desc())
    rows = store.rows(query if closed else query.where(edge_alerts.c.closed_at_ms.is_(None)))
    return [
        EdgeAlert(row.kind, row.tenant, row.cohort, row.opened_at_ms, row.closed_at_ms, msgspec.json.decode(row.detail))
        for row in rows
    ]


def note_alert(store: Store, actor: str, said: Said) -> bool:
    """Takes over one word of an edge, once; whether it is news. What the breaker does is a decision, and stands in the
    audit. Raises ControlAway."""
    table = edge_alerts
    newest = select(table).where(table.c.key == said.key).order_by(table.c.opened_at_ms.desc()).limit(1)
    with store.write(actor) as write:
        known = write.row(newest)
        if said.state == "open":
            if known is not None and (known.closed_at_ms is None or known.opened_at_ms >= said.at_ms):
                return False
            facts = {"key": said.key, "kind": said.kind, "tenant": said.tenant, "cohort": said.cohort}
            detail = msgspec.json.encode(said.detail).decode()
            write.execute(insert(table), facts | {"opened_at_ms": said.at_ms, "detail": detail})
        else:
            if known is None or known.closed_at_ms is not None or known.opened_at_ms >= said.at_ms:
                return False
            this = and_(table.c.key == said.key, table.c.opened_at_ms == known.opened_at_ms)
            write.execute(update(table).where(this).values(closed_at_ms=said.at_ms))
        if said.kind in BREAKER_KINDS:
            what = {"kind": said.kind, "state": said.state, "at_ms": said.at_ms, **said.detail}
            write.note("breaker", said.tenant, f"cohort/{said.cohort or 'all'}", what)
    return True


def close_alert(store: Store, which: str, actor: str, reason: str, *, edge_gone: bool = False) -> None:
    """By a person, by its id; load tells others (`closings_since`). Raises ConfigError without a reason, NotFound, and
    Conflict for a hold whose edge is not said to be gone."""
    check_reason(reason)
    table = edge_alerts
    with store.write(actor) as write:
        for row in write.rows(select(table).where(table.c.closed_at_ms.is_(None))):
            if alert_id(row.key, row.opened_at_ms) == which:
                if row.kind == HOLD and not edge_gone:
                    raise Conflict(
                        f"{which} is a hold in force, which this would hide and not end: `fleetgate breaker off` ends "
                        "it; --edge-gone closes it where its edge is gone for good"
                    )
                this = and_(table.c.key == row.key, table.c.opened_at_ms == row.opened_at_ms)
                write.execute(update(table).where(this).values(closed_at_ms=max(write.now_ms, row.opened_at_ms + 1)))
                said = {"kind": row.kind, "cohort": row.cohort, "opened_at_ms": row.opened_at_ms, "reason": reason}
                write.note("alert-close", row.tenant, f"alert/{which}", said)
                return
    raise NotFound(
        f"no edge has an open alert {which}: `fleetgate alerts` shows them; those of the watch close by themselves"
    )


def closings_since(store: Store, at_ms: int) -> list[tuple[str, int]]:
    """(key, Unix ms) of the alerts that were closed from then on, by whomever. Raises ControlAway."""
    table = edge_alerts
    query = select(table.c.key, table.c.closed_at_ms).where(table.c.closed_at_ms >= at_ms)
    return [(row.key, row.closed_at_ms) for row in store.rows(query.order_by(table.c.closed_at_ms))]
