"""Which held events a decision gives back to the fleet: those of its case, and of no other.

A decision to release a device as `benign` or `false_positive` gives back what was held of it from the time its case was
opened until another case is: so what was still held after the decision, until the last edge had learned of it, is among
them, and what a later quarantine holds is not. Times are those of edges' clocks, which differ and may be set: cases
take turns in the order of their decisions (`spans`). One that `confirmed` the suspicion gives nothing back. Only reads;
how the events are moved is decided by load (`load.release`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, and_, func, select, tuple_

from fleetgate.control.schema import decisions, quarantine_cases
from fleetgate.control.states import Classification, Decision
from fleetgate.control.store import BATCH_LIMIT, Store

GIVES_BACK = (Classification.BENIGN, Classification.FALSE_POSITIVE)

NO_END_MS = 9_000_000_000_000
"""In the year 2255: later than any receipt, and a time that ClickHouse can count to."""


EARLIER_MS: Final = 24 * 3_600_000
"""So long before the first case of a device was opened what was held may be its: by a clock that was set back since, or
one that is behind. No longer: what records that were lost had a case for stays held."""


class Case(NamedTuple):
    """`opened_at_ms` by the clock of an edge; `decided` is the number of the decision that closed it, if any."""

    case_id: int
    opened_at_ms: int
    decided: int | None


class Release(NamedTuple):
    """Events of this device that were received from `from_ms` on and before `until_ms` (Unix ms) are released by the
    decision of this name."""

    decision_id: int
    decision: str
    tenant: str
    device_id: str
    from_ms: int
    until_ms: int


def decision_name(decision_id: int, at_ms: int) -> str:
    """What stands in the column `decision` of a released event. The number alone might be given a second time, by
    records that were restored from an older copy."""
    return f"{decision_id}-{at_ms}"


def releases_since(store: Store, decision_id: int) -> list[Release]:
    """By the decision of this number and those behind it, in their order. Raises ControlAway."""
    return _releases(store, decisions.c.decision_id >= decision_id)


def releases_of(store: Store, tenant: str, device_id: str) -> list[Release]:
    """Of one device, in the order of the decisions. Raises ControlAway."""
    return _releases(store, decisions.c.tenant == tenant, decisions.c.device_id == device_id)


def spans(cases: Sequence[Case]) -> dict[int, tuple[int, int]]:
    """Of the cases of one device, by number: what was received from the first time on and before the second is its.

    They take turns: first those that were decided, as the decisions came, and who waits for one last. Each has what was
    received until one of those behind it was opened, also where that was earlier by the clock of an edge that was set
    right since, or of another edge: so nothing that a person has not decided on is any other's, and nothing two cases'.
    """
    turns = sorted(cases, key=lambda case: (case.decided is None, case.decided or 0, case.case_id))
    found, until_ms = {}, NO_END_MS
    for place, case in reversed(list(enumerate(turns))):
        from_ms = min(until_ms, case.opened_at_ms - (0 if place else EARLIER_MS))
        found[case.case_id] = (from_ms, until_ms)
        until_ms = from_ms
    return found


def _releases(store: Store, *conditions: ColumnElement[bool]) -> list[Release]:
    gives_back = and_(decisions.c.decision == Decision.RELEASE, decisions.c.classification.in_(GIVES_BACK))
    about_a_case = decisions.c.case_id.is_not(None)
    columns = (decisions.c[name] for name in ("decision_id", "at_ms", "tenant", "device_id", "case_id"))
    query = select(*columns).where(gives_back, about_a_case, *conditions).order_by(decisions.c.decision_id)
    rows = store.rows(query)
    names = sorted({(str(row.tenant), str(row.device_id)) for row in rows})
    found: dict[int, tuple[int, int]] = {}
    for start in range(0, len(names), BATCH_LIMIT):
        for _, cases in groupby(_cases(store, names[start : start + BATCH_LIMIT]), key=itemgetter(0)):
            found |= spans([case for _, case in cases])
    return [
        Release(
            row.decision_id, decision_name(row.decision_id, row.at_ms), row.tenant, row.device_id, *found[row.case_id]
        )
        for row in rows
    ]


def _cases(store: Store, names: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], Case]]:
    """Of these devices, each device's together."""
    cases = quarantine_cases.c
    first = func.min(decisions.c.decision_id).label("decided")
    query = (
        select(cases.tenant, cases.device_id, cases.case_id, cases.opened_at_ms, first)
        .join(decisions, decisions.c.case_id == cases.case_id, isouter=True)
        .where(tuple_(cases.tenant, cases.device_id).in_(names))
        .group_by(cases.tenant, cases.device_id, cases.case_id, cases.opened_at_ms)
        .order_by(cases.tenant, cases.device_id)
    )
    return [
        ((row.tenant, row.device_id), Case(row.case_id, row.opened_at_ms, row.decided)) for row in store.rows(query)
    ]
