"""The look-up of devices: one query for many, and what becomes of its rows.

Decides which credentials an edge has to know of. When it asks is decided by `accept.registry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, or_, select
from sqlalchemy.sql import Select

from fleetgate.control.records import CredentialRecord, DeviceRecord, DeviceState, DeviceStatus, status_at
from fleetgate.control.schema import bindings, credentials, devices
from fleetgate.judge.mac import FORMER_CREDENTIAL_MS


def devices_query(names: Sequence[tuple[str, str]], now_ms: int) -> Select[Any]:
    """A row for each device and credential, newest first; credential columns are null where none is left."""
    binding = and_(
        bindings.c.tenant == devices.c.tenant,
        bindings.c.device_id == devices.c.device_id,
        bindings.c.to_ms.is_(None),
    )
    credential = and_(
        credentials.c.tenant == devices.c.tenant,
        credentials.c.device_id == devices.c.device_id,
        or_(
            credentials.c.ended_at_ms.is_(None),
            credentials.c.ended_at_ms > now_ms - FORMER_CREDENTIAL_MS,
            and_(credentials.c.revoked_from_ms.is_not(None), credentials.c.not_after_ms > now_ms),
        ),
    )
    return (
        select(
            devices.c.tenant,
            devices.c.device_id,
            devices.c.status.label("device_status"),
            devices.c.state,
            devices.c.state_at_ms,
            devices.c.decided_at_ms,
            bindings.c.vehicle_id,
            credentials.c.key_digest,
            credentials.c.fingerprint,
            credentials.c.kid,
            credentials.c.status,
            credentials.c.not_after_ms,
            credentials.c.ended_at_ms,
            credentials.c.revoked_from_ms,
        )
        .select_from(devices)
        .outerjoin(bindings, binding)
        .outerjoin(credentials, credential)
        .where(or_(*(_of_tenant(tenant, names) for tenant in sorted({tenant for tenant, _ in names}))))
        .order_by(devices.c.tenant, devices.c.device_id, credentials.c.credential_id.desc())
    )


def _of_tenant(tenant: str, names: Sequence[tuple[str, str]]) -> ColumnElement[bool]:
    """Apart for each tenant: for pairs in one list SQLite walks through the whole table."""
    return and_(
        devices.c.tenant == tenant, devices.c.device_id.in_([device_id for of, device_id in names if of == tenant])
    )


def device_record(rows: Sequence[Row[Any]], now_ms: int) -> DeviceRecord:
    """The rows of one device as its record."""
    first = rows[0]
    return DeviceRecord(
        tenant=first.tenant,
        device_id=first.device_id,
        vehicle_id=first.vehicle_id,
        status=DeviceStatus(first.device_status),
        state=DeviceState(first.state),
        state_at_ms=first.state_at_ms,
        decided_at_ms=first.decided_at_ms,
        credentials=tuple(
            CredentialRecord(
                key_digest=row.key_digest,
                fingerprint=row.fingerprint,
                kid=row.kid,
                status=status_at(row.status, row.revoked_from_ms, now_ms),
                not_after_ms=row.not_after_ms,
                ended_at_ms=row.ended_at_ms,
                revoked_from_ms=row.revoked_from_ms,
            )
            for row in rows
            if row.fingerprint is not None
        ),
    )
