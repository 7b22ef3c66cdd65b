"""What a person gets to see of the audit: who changed what in the records, and why.

Only reads: each change writes its own entry, in its own transaction (`control.store`), at the end of a chain
(`control.auditchain`). Decides which entries are
decisions about a device: those of people, not those by which it was renewed or a machine changed its state.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Row, Select, select

from fleetgate.control.schema import audit
from fleetgate.control.store import LIFTS_NOTHING, Store


class AuditEntry(Struct, frozen=True):
    """`object` is what was changed, such as device/car-7-tcu; of the gate's own things, `tenant` is empty."""

    at_ms: int
    actor: str
    action: str
    tenant: str
    object: str
    detail: dict[str, Any]


class DecisionTaken(Struct, frozen=True):
    """What a person decided about a device."""

    at_ms: int
    decision: str
    actor: str
    reason: str | None


def list_audit(store: Store, tenant: str | None, device_id: str | None, last: int) -> list[AuditEntry]:
    """The `last` entries, newest first; of one tenant, of one device where that is wanted."""
    query = select(audit)
    if tenant is not None:
        query = query.where(audit.c.tenant == tenant)
    if device_id is not None:
        query = query.where(_is_of(device_id))
    return [
        AuditEntry(row.at_ms, row.actor, row.action, row.tenant, row.object, _detail(row))
        for row in store.rows(_newest_first(query).limit(last))
    ]


def decisions_about(store: Store, tenant: str, device_id: str) -> list[DecisionTaken]:
    """Newest first."""
    query = select(audit).where(audit.c.tenant == tenant, _is_of(device_id), audit.c.action.not_in(LIFTS_NOTHING))
    return [
        DecisionTaken(row.at_ms, row.action, row.actor, _reason(_detail(row)))
        for row in store.rows(_newest_first(query))
    ]


def _is_of(device_id: str) -> ColumnElement[bool]:
    return audit.c.object == f"device/{device_id}"


def _newest_first(query: Select[Any]) -> Select[Any]:
    return query.order_by(audit.c.place.desc())


def _detail(row: Row[Any]) -> dict[str, Any]:
    return msgspec.json.decode(row.detail, type=dict[str, Any])


def _reason(detail: dict[str, Any]) -> str | None:
    """A decision on a case has a comment."""
    return detail.get("reason") or detail.get("comment") or None
