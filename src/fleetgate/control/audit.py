"""What a person gets to see of the audit: who changed what in the records, and why.

Only reads: each change writes its own entry, in its own transaction (`control.store`), at the end of a chain
(`control.auditchain`). Decides which entries are decisions about a device: those of people, not those by which it was
renewed or a machine changed its state; and that a row that somebody made unreadable is told as such, among the others.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Row

from fleetgate.control.auditchain import as_written, rows_query
from fleetgate.control.schema import audit
from fleetgate.control.store import LIFTS_NOTHING, Store
from fleetgate.converting import converter


class AuditEntry(Struct, frozen=True):
    """`object` is what was changed, such as device/car-7-tcu; of the gate's own things, `tenant` is empty."""

    place: int
    at_ms: int
    actor: str
    action: str
    tenant: str
    object: str
    detail: dict[str, Any]


class Unreadable(Struct, frozen=True):
    """A row that is not as any writer of ours writes one: what it said is not known. `place` is None where it has
    no whole number as its place."""

    place: int | None
    problem: str = "it cannot be read: see `fleetgate verify audit`"

    def __str__(self) -> str:
        which = "a row of the audit without a place" if self.place is None else f"row {self.place} of the audit"
        return f"{which}: {self.problem}"


class DecisionTaken(Struct, frozen=True):
    """What a person decided about a device."""

    at_ms: int
    decision: str
    actor: str
    reason: str | None


def rows_of(store: Store, *conditions: ColumnElement[bool], last: int | None = None) -> list[AuditEntry | Unreadable]:
    """The rows, or the `last` of them, that fulfil all conditions; newest first."""
    query = rows_query().where(*conditions).order_by(audit.c.place.desc()).limit(last)
    return [_read(row) for row in store.rows(query)]


def list_audit(store: Store, tenant: str | None, device_id: str | None, last: int) -> list[AuditEntry]:
    """What can be read of the last rows."""
    return [row for row in list_rows(store, tenant, device_id, last) if isinstance(row, AuditEntry)]


def list_rows(store: Store, tenant: str | None, device_id: str | None, last: int) -> list[AuditEntry | Unreadable]:
    """The `last` rows, newest first; of one tenant, of one device where that is wanted."""
    conditions = []
    if tenant is not None:
        conditions.append(audit.c.tenant == tenant)
    if device_id is not None:
        conditions.append(is_of(device_id))
    return rows_of(store, *conditions, last=last)


def decisions_about(store: Store, tenant: str, device_id: str) -> tuple[list[DecisionTaken], list[Unreadable]]:
    """Newest first; and the rows that may be decisions, too."""
    found = rows_of(store, audit.c.tenant == tenant, is_of(device_id), audit.c.action.not_in(LIFTS_NOTHING))
    taken = [
        DecisionTaken(entry.at_ms, entry.action, entry.actor, _reason(entry.detail))
        for entry in found
        if isinstance(entry, AuditEntry)
    ]
    return taken, [row for row in found if isinstance(row, Unreadable)]


def is_of(device_id: str) -> ColumnElement[bool]:
    return audit.c.object == f"device/{device_id}"


def _read(row: Row[Any]) -> AuditEntry | Unreadable:
    try:
        values = as_written(row)
        return _entry(values | {"detail": msgspec.json.decode(values["detail"] or "")})
    except (msgspec.MsgspecError, RecursionError):
        return Unreadable(row.place)


def _reason(detail: dict[str, Any]) -> str | None:
    """A decision on a case has a comment."""
    reason = detail.get("reason") or detail.get("comment")
    return str(reason) if reason else None


_entry = converter(AuditEntry)
