"""Alerts of the edges, in the records: each is opened once and closed once, whatever load repeats.

Decides which word about an alert is news, and that what the breaker does stands in the audit. What is an alert, and
when it is over, is decided by the edge (`accept.breaker`, `accept.refusals`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct
from sqlalchemy import and_, insert, select, update

from fleetgate.control.schema import edge_alerts
from fleetgate.control.store import Store

BREAKER_KINDS = ("breaker", "breaker_spent")


class EdgeAlert(Struct, frozen=True):
    """An alert of an edge. `cohort` is empty for all of the tenant; `closed_at_ms` is None while it is open."""

    kind: str
    tenant: str
    cohort: str
    opened_at_ms: int
    closed_at_ms: int | None
    detail: dict[str, str | float]


def list_alerts(store: Store, *, closed: bool = False) -> list[EdgeAlert]:
    """Those that are open, with `closed` all of them, newest first."""
    query = select(edge_alerts).order_by(edge_alerts.c.opened_at_ms.desc())
    rows = store.rows(query if closed else query.where(edge_alerts.c.closed_at_ms.is_(None)))
    return [
        EdgeAlert(row.kind, row.tenant, row.cohort, row.opened_at_ms, row.closed_at_ms, msgspec.json.decode(row.detail))
        for row in rows
    ]


def note_alert(
    store: Store,
    actor: str,
    key: str,
    state: str,
    at_ms: int,
    kind: str,
    tenant: str,
    cohort: str,
    detail: Mapping[str, str | float],
) -> bool:
    """Takes over one `alert` record of a spool, once; whether it is news. What the breaker does is a decision, and
    stands in the audit. Raises ControlAway."""
    table = edge_alerts
    newest = select(table).where(table.c.key == key).order_by(table.c.opened_at_ms.desc()).limit(1)
    with store.write(actor) as write:
        known = write.row(newest)
        if state == "open":
            if known is not None and (known.closed_at_ms is None or known.opened_at_ms >= at_ms):
                return False
            facts = {"kind": kind, "tenant": tenant, "cohort": cohort, "detail": msgspec.json.encode(detail).decode()}
            write.execute(insert(table), {"key": key, "opened_at_ms": at_ms} | facts)
        else:
            if known is None or known.closed_at_ms is not None or known.opened_at_ms >= at_ms:
                return False
            this = and_(table.c.key == key, table.c.opened_at_ms == known.opened_at_ms)
            write.execute(update(table).where(this).values(closed_at_ms=at_ms))
        if kind in BREAKER_KINDS:
            said = {"kind": kind, "state": state, "at_ms": at_ms, **detail}
            write.note("breaker", tenant, f"cohort/{cohort or 'all'}", said)
    return True
