"""What a person gets to see of the devices: the list, and one device with its history.

Decides how status, state and credentials add up to one word. Only reads, and no VINs: this works on a connection that
cannot read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import groupby
from typing import Any

from msgspec import Struct
from sqlalchemy import ColumnElement, Row, Table, and_, select

from fleetgate.control.audit import DecisionTaken, Unreadable, decisions_about
from fleetgate.control.records import CredentialStatus, DeviceState, DeviceStatus, status_at
from fleetgate.control.schema import bindings, credentials, devices
from fleetgate.control.store import Store
from fleetgate.errors import NotFound


class Standing(StrEnum):
    """What a device is to an edge now, in one word; the first that is true."""

    DECOMMISSIONED = "decommissioned"
    BANNED = "banned"
    SUSPENDED = "suspended"
    REVOKED = "revoked"  # no active credential
    EXPIRED = "expired"  # it has one, which has expired
    QUARANTINED = "quarantined"
    ACTIVE = "active"


class DeviceSummary(Struct, frozen=True):
    """A line of `device list`. `status` is what people decided, `state` how far it is trusted, `credential` the status
    of its newest one, which is under root key `kid`, and is revoked from `revoked_from_ms` on, be that past or to come;
    `standing` is what comes of all three now."""

    tenant: str
    device_id: str
    vehicle_id: str | None
    standing: str
    status: str
    state: str
    credential: str | None
    kid: int | None
    not_after_ms: int | None
    revoked_from_ms: int | None
    enrolled_at_ms: int


class CredentialDetail(Struct, frozen=True):
    """`parent`: the fingerprint of the one it was renewed from."""

    fingerprint: str
    parent: str | None
    serial: str
    kid: int
    status: str
    not_before_ms: int
    not_after_ms: int
    ended_at_ms: int | None
    revoked_from_ms: int | None
    invalid_from_ms: int | None
    reason: str | None


class BindingDetail(Struct, frozen=True):
    vehicle_id: str
    from_ms: int
    to_ms: int | None


class DeviceDetail(Struct, frozen=True):
    """What `device show` tells: the device with its whole history, newest first; `unreadable` are rows of the audit
    about it that may have been decisions."""

    tenant: str
    device_id: str
    vehicle_id: str | None
    standing: str
    status: str
    state: str
    enrolled_at_ms: int
    credentials: list[CredentialDetail]
    bindings: list[BindingDetail]
    decisions: list[DecisionTaken]
    unreadable: list[Unreadable]

    @property
    def kept_out_by(self) -> DecisionTaken | None:
        """The decision that keeps the device out as such, whatever its credentials are."""
        keeps_out = _KEEPS_OUT.get(DeviceState.BANNED if self.state == DeviceState.BANNED else self.status)
        return next((taken for taken in self.decisions if taken.decision == keeps_out), None)


_KEEPS_OUT: dict[str, str] = {
    DeviceStatus.SUSPENDED: "suspend",
    DeviceStatus.BANNED: "ban",
    DeviceStatus.DECOMMISSIONED: "decommission",
}
"""The decision that each of these comes from."""


def list_devices(store: Store, tenant: str | None = None) -> list[DeviceSummary]:
    """Every device, or those of one tenant, in the order of their names."""
    binding = and_(
        bindings.c.tenant == devices.c.tenant,
        bindings.c.device_id == devices.c.device_id,
        bindings.c.to_ms.is_(None),
    )
    credential = and_(credentials.c.tenant == devices.c.tenant, credentials.c.device_id == devices.c.device_id)
    query = (
        select(
            devices,
            bindings.c.vehicle_id,
            credentials.c.status.label("credential"),
            credentials.c.kid,
            credentials.c.revoked_from_ms,
            credentials.c.not_after_ms,
        )
        .outerjoin(bindings, binding)
        .outerjoin(credentials, credential)
        .order_by(devices.c.tenant, devices.c.device_id, credentials.c.credential_id.desc())
    )
    if tenant is not None:
        query = query.where(devices.c.tenant == tenant)
    now_ms = store.clock.now_ms()
    grouped = groupby(store.rows(query), key=lambda row: (row.tenant, row.device_id))
    return [_summary(list(of_device), now_ms) for _, of_device in grouped]


def _summary(rows: list[Row[Any]], now_ms: int) -> DeviceSummary:
    """Of the rows of one device, one for each credential, newest first."""
    first = rows[0]
    held = [(row.credential, row.revoked_from_ms, row.not_after_ms) for row in rows if row.credential is not None]
    return DeviceSummary(
        tenant=first.tenant,
        device_id=first.device_id,
        vehicle_id=first.vehicle_id,
        standing=_standing(first.status, first.state, held, now_ms),
        status=first.status,
        state=first.state,
        credential=status_at(held[0][0], held[0][1], now_ms) if held else None,
        kid=first.kid,
        not_after_ms=first.not_after_ms,
        revoked_from_ms=first.revoked_from_ms,
        enrolled_at_ms=first.enrolled_at_ms,
    )


def _standing(status: str, state: str, held: Sequence[tuple[str, int | None, int]], now_ms: int) -> Standing:
    """`held`: (status, revoked from, not after) of each credential."""
    active = [
        not_after_ms
        for status_then, revoked_from_ms, not_after_ms in held
        if status_at(status_then, revoked_from_ms, now_ms) is CredentialStatus.ACTIVE
    ]
    match status, state:
        case DeviceStatus.DECOMMISSIONED, _:
            return Standing.DECOMMISSIONED
        case (DeviceStatus.BANNED, _) | (_, DeviceState.BANNED):
            return Standing.BANNED
        case DeviceStatus.SUSPENDED, _:
            return Standing.SUSPENDED
        case _ if not active:
            return Standing.REVOKED
        case _ if max(active) <= now_ms:
            return Standing.EXPIRED
        case _, DeviceState.QUARANTINED:
            return Standing.QUARANTINED
        case _:
            return Standing.ACTIVE


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
    now_ms = store.clock.now_ms()
    held = [(row.status, row.revoked_from_ms, row.not_after_ms) for row in of_credentials]
    taken, unreadable = decisions_about(store, tenant, device_id)
    return DeviceDetail(
        tenant=tenant,
        device_id=device_id,
        vehicle_id=next((row.vehicle_id for row in of_bindings if row.to_ms is None), None),
        standing=_standing(found[0].status, found[0].state, held, now_ms),
        status=found[0].status,
        state=found[0].state,
        enrolled_at_ms=found[0].enrolled_at_ms,
        credentials=_credential_details(of_credentials, now_ms),
        bindings=[BindingDetail(row.vehicle_id, row.from_ms, row.to_ms) for row in of_bindings],
        decisions=taken,
        unreadable=unreadable,
    )


def _credential_details(rows: Sequence[Row[Any]], now_ms: int) -> list[CredentialDetail]:
    fingerprints = {row.credential_id: row.fingerprint.hex() for row in rows}
    return [
        CredentialDetail(
            fingerprint=row.fingerprint.hex(),
            parent=fingerprints.get(row.parent),
            serial=row.serial,
            kid=row.kid,
            status=status_at(row.status, row.revoked_from_ms, now_ms),
            not_before_ms=row.not_before_ms,
            not_after_ms=row.not_after_ms,
            ended_at_ms=row.ended_at_ms,
            revoked_from_ms=row.revoked_from_ms,
            invalid_from_ms=row.invalid_from_ms,
            reason=row.reason,
        )
        for row in rows
    ]


def certificates_of(store: Store, tenant: str, device_id: str) -> list[tuple[bytes, bytes]]:
    """(key digest, fingerprint) of every certificate that the device ever had."""
    query = select(credentials.c.key_digest, credentials.c.fingerprint).where(device_is(credentials, tenant, device_id))
    return [(row.key_digest, row.fingerprint) for row in store.rows(query)]


def device_is(table: Table, tenant: str, device_id: str) -> ColumnElement[bool]:
    return and_(table.c.tenant == tenant, table.c.device_id == device_id)


def require_device(store: Store, tenant: str, device_id: str) -> None:
    """Raises NotFound for one that was never enrolled."""
    if not store.rows(select(devices.c.device_id).where(device_is(devices, tenant, device_id))):
        raise NotFound(unknown_device(tenant, device_id))


def unknown_device(tenant: str, device_id: str) -> str:
    device, of_whom = device_id or repr(device_id), tenant or repr(tenant)
    return f"there is no device {device} of tenant {of_whom}; `fleetgate device list` shows all"


def unknown_tenant(tenant: str) -> str:
    return f"there is no tenant {tenant or repr(tenant)}: `fleetgate device list` shows whose devices there are"
