"""Which held events a decision gives back to the fleet: those of its case, and of no other.

A decision to release a device as `benign` or `false_positive` gives back what was held of it from the time its case was
opened until another case is: so what was still held after the decision, until the last edge had learned of it, is among
them, and what a later quarantine holds is not. One that `confirmed` the suspicion gives nothing back. Only reads; how
the events are moved is decided by load (`load.release`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, func, select

from fleetgate.control.schema import decisions, quarantine_cases
from fleetgate.control.states import Classification, Decision
from fleetgate.control.store import Store

GIVES_BACK = (Classification.BENIGN, Classification.FALSE_POSITIVE)

NO_END_MS = 9_000_000_000_000
"""In the year 2255: later than any receipt, and a time that ClickHouse can count to."""


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


def _releases(store: Store, *conditions: ColumnElement[bool]) -> list[Release]:
    later = quarantine_cases.alias("later")
    until_ms = (
        select(func.min(later.c.opened_at_ms))
        .where(
            later.c.tenant == decisions.c.tenant,
            later.c.device_id == decisions.c.device_id,
            # By the edges' clocks alone: that of the decision may be ahead of them.
            later.c.opened_at_ms > quarantine_cases.c.opened_at_ms,
        )
        .scalar_subquery()
    )
    query = (
        select(decisions, quarantine_cases.c.opened_at_ms, until_ms.label("until_ms"))
        .join(quarantine_cases, decisions.c.case_id == quarantine_cases.c.case_id)
        .where(and_(decisions.c.decision == Decision.RELEASE, decisions.c.classification.in_(GIVES_BACK), *conditions))
        .order_by(decisions.c.decision_id)
    )
    return [_release(row) for row in store.rows(query)]


def _release(row: Any) -> Release:
    name = decision_name(row.decision_id, row.at_ms)
    until_ms = NO_END_MS if row.until_ms is None else row.until_ms
    return Release(row.decision_id, name, row.tenant, row.device_id, row.opened_at_ms, until_ms)
