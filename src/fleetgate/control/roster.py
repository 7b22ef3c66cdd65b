"""What a person gets to see of the devices: the list, and one device with its history.

Only reads. VINs are not among it: this works on a connection that cannot read them.
"""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import ColumnElement, Table, and_, func, select

from fleetgate.control.schema import bindings, credentials, devices
from fleetgate.control.store import Store
from fleetgate.errors import NotFound


class DeviceSummary(Struct, frozen=True):
    """A line of `device list`."""

    tenant: str
    device_id: str
    vehicle_id: str | None
    status: str
    state: str
    credential: str | None
    not_after_ms: int | None
    enrolled_at_ms: int


class CredentialDetail(Struct, frozen=True):
    fingerprint: str
    serial: str
    kid: int
    status: str
    not_before_ms: int
    not_after_ms: int
    ended_at_ms: int | None
    reason: str | None


class BindingDetail(Struct, frozen=True):
    vehicle_id: str
    from_ms: int
    to_ms: int | None


class DeviceDetail(Struct, frozen=True):
    """What `device show` tells: the device with its whole history, newest first."""

    tenant: str
    device_id: str
    vehicle_id: str | None
    status: str
    state: str
    enrolled_at_ms: int
    credentials: list[CredentialDetail]
    bindings: list[BindingDetail]


def list_devices(store: Store, tenant: str | None = None) -> list[DeviceSummary]:
    """Every device, or those of one tenant, in the order of their names."""
    newest = (
        select(func.max(credentials.c.credential_id))
        .where(credentials.c.tenant == devices.c.tenant, credentials.c.device_id == devices.c.device_id)
        .correlate(devices)
        .scalar_subquery()
    )
    binding = and_(
        bindings.c.tenant == devices.c.tenant,
        bindings.c.device_id == devices.c.device_id,
        bindings.c.to_ms.is_(None),
    )
    query = (
        select(devices, bindings.c.vehicle_id, credentials.c.status.label("credential"), credentials.c.not_after_ms)
        .outerjoin(bindings, binding)
        .outerjoin(credentials, credentials.c.credential_id == newest)
        .order_by(devices.c.tenant, devices.c.device_id)
    )
    if tenant is not None:
        query = query.where(devices.c.tenant == tenant)
    return [
        DeviceSummary(
            tenant=row.tenant,
            device_id=row.device_id,
            vehicle_id=row.vehicle_id,
            status=row.status,
            state=row.state,
            credential=row.credential,
            not_after_ms=row.not_after_ms,
            enrolled_at_ms=row.enrolled_at_ms,
        )
        for row in store.rows(query)
    ]


def show_device(store: Store, tenant: str, device_id: str) -> DeviceDetail:
    """Raises NotFound."""
    found = store.rows(select(devices).where(device_is(devices, tenant, device_id)))
    if not found:
        raise NotFound(unknown_device(tenant, device_id))
    of_credentials = store.rows(
        select(credentials)
        .where(device_is(credentials, tenant, device_id))
        .order_by(credentials.c.credential_id.desc())
    )
    of_bindings = store.rows(
        select(bindings).where(device_is(bindings, tenant, device_id)).order_by(bindings.c.binding_id.desc())
    )
    return DeviceDetail(
        tenant=tenant,
        device_id=device_id,
        vehicle_id=next((row.vehicle_id for row in of_bindings if row.to_ms is None), None),
        status=found[0].status,
        state=found[0].state,
        enrolled_at_ms=found[0].enrolled_at_ms,
        credentials=[
            CredentialDetail(
                fingerprint=row.fingerprint.hex(),
                serial=row.serial,
                kid=row.kid,
                status=row.status,
                not_before_ms=row.not_before_ms,
                not_after_ms=row.not_after_ms,
                ended_at_ms=row.ended_at_ms,
                reason=row.reason,
            )
            for row in of_credentials
        ],
        bindings=[BindingDetail(row.vehicle_id, row.from_ms, row.to_ms) for row in of_bindings],
    )


def certificates_of(store: Store, tenant: str, device_id: str) -> list[tuple[bytes, bytes]]:
    """(key digest, fingerprint) of every certificate that the device ever had."""
    query = select(credentials.c.key_digest, credentials.c.fingerprint).where(device_is(credentials, tenant, device_id))
    return [(row.key_digest, row.fingerprint) for row in store.rows(query)]


def device_is(table: Table, tenant: str, device_id: str) -> ColumnElement[bool]:
    return and_(table.c.tenant == tenant, table.c.device_id == device_id)


def unknown_device(tenant: str, device_id: str) -> str:
    return f"there is no device {device_id} of tenant {tenant}; `fleetgate device list` shows all"
