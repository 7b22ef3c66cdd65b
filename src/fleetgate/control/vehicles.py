"""Vehicles: what is known of one, which VIN it has, and how it goes from one tenant to another.

Decides what a transfer ends, what it begins and what moves along. Telemetry belongs to the tenant under which it was
received, before and after; nothing of it is touched. VINs and transfers tell who a car is: they are read and written in
a transaction of writing only, whose audit says who looked.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct
from sqlalchemy import Column, ColumnElement, Row, and_, insert, select, update

from fleetgate.control.devices import Enrolment, enrol
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import DEVICE_DAYS, Authority
from fleetgate.control.reason import check_reason
from fleetgate.control.retirement import decommission
from fleetgate.control.schema import bindings, transfers, vehicles, vins
from fleetgate.control.store import Store, Write
from fleetgate.errors import ConfigError, Conflict, NotFound

_VIN = re.compile(r"[A-HJ-NPR-Z0-9]{17}")  # ISO 3779: no I, O or Q


class VehicleSummary(Struct, frozen=True):
    """A line of `vehicle list`."""

    tenant: str
    vehicle_id: str
    device_id: str | None
    created_at_ms: int


class DeviceInVehicle(Struct, frozen=True):
    device_id: str
    from_ms: int
    to_ms: int | None


class VehicleDetail(Struct, frozen=True):
    """What `vehicle show` tells: the devices that sat in it, newest first."""

    tenant: str
    vehicle_id: str
    created_at_ms: int
    devices: list[DeviceInVehicle]


class Transfer(Struct, frozen=True):
    at_ms: int
    from_tenant: str
    from_vehicle_id: str
    to_tenant: str
    to_vehicle_id: str
    actor: str
    reason: str


class Car(Struct, frozen=True):
    """Who a vehicle is, for those who may know: its VIN, and every transfer of this car, oldest first."""

    vin: str | None
    transfers: list[Transfer]


def list_vehicles(store: Store, tenant: str | None = None) -> list[VehicleSummary]:
    """Every vehicle, or those of one tenant, in the order of their names."""
    binding = and_(
        bindings.c.tenant == vehicles.c.tenant,
        bindings.c.vehicle_id == vehicles.c.vehicle_id,
        bindings.c.to_ms.is_(None),
    )
    query = select(vehicles, bindings.c.device_id).outerjoin(bindings, binding)
    if tenant is not None:
        query = query.where(vehicles.c.tenant == tenant)
    rows = store.rows(query.order_by(vehicles.c.tenant, vehicles.c.vehicle_id))
    return [VehicleSummary(row.tenant, row.vehicle_id, row.device_id, row.created_at_ms) for row in rows]


def show_vehicle(store: Store, tenant: str, vehicle_id: str) -> VehicleDetail:
    """Raises NotFound."""
    found = store.rows(select(vehicles).where(vehicles.c.tenant == tenant, vehicles.c.vehicle_id == vehicle_id))
    if not found:
        raise NotFound(_unknown(tenant, vehicle_id))
    of_vehicle = select(bindings).where(bindings.c.tenant == tenant, bindings.c.vehicle_id == vehicle_id)
    sat = store.rows(of_vehicle.order_by(bindings.c.binding_id.desc()))
    return VehicleDetail(
        tenant,
        vehicle_id,
        found[0].created_at_ms,
        [DeviceInVehicle(row.device_id, row.from_ms, row.to_ms) for row in sat],
    )


def identify(write: Write, tenant: str, vehicle_id: str) -> Car:
    """Who this vehicle is; the audit says who asked. Raises NotFound."""
    _check_known(write, tenant, vehicle_id)
    write.note("identify", tenant, f"vehicle/{vehicle_id}", {})
    vin = write.row(select(vins).where(_name_is(vins.c.tenant, vins.c.vehicle_id, tenant, vehicle_id)))
    return Car(None if vin is None else vin.vin, _transfers_of(write, tenant, vehicle_id))


def set_vin(write: Write, tenant: str, vehicle_id: str, vin: str) -> None:
    """Raises NotFound, ConfigError for what is no VIN, Conflict where the vehicle has another."""
    if _VIN.fullmatch(vin) is None:
        raise ConfigError("a VIN has 17 capital letters and digits, without I, O and Q")
    _check_known(write, tenant, vehicle_id)
    of_vehicle = _name_is(vins.c.tenant, vins.c.vehicle_id, tenant, vehicle_id)
    if write.row(select(vins).where(of_vehicle)) is not None:
        raise Conflict(
            f"vehicle {vehicle_id} of tenant {tenant} has a VIN, which does not change: name another vehicle"
        )
    write.execute(insert(vins), {"tenant": tenant, "vehicle_id": vehicle_id, "vin": vin})
    write.note("set_vin", tenant, f"vehicle/{vehicle_id}", {})


def transfer(
    write: Write,
    authority: Authority,
    keyring: Keyring,
    tenant: str,
    vehicle_id: str,
    to_tenant: str,
    to_vehicle_id: str,
    reason: str,
    days: int = DEVICE_DAYS,
    csr: bytes | None = None,
) -> Enrolment:
    """Ends the vehicle at `tenant` and begins it, with a device of its own, at `to_tenant`; the VIN goes along.

    The new vehicle id is a new pseudonym: with the old one, either tenant could tell that it is the same car. Raises
    NotFound, Conflict, and as `enrol`.
    """
    check_reason(reason)
    _check_known(write, tenant, vehicle_id)
    if to_tenant == tenant:
        raise Conflict(
            f"vehicle {vehicle_id} is of tenant {tenant} already: name the tenant that the car goes to with --to-tenant"
        )
    taken = select(vehicles).where(_name_is(vehicles.c.tenant, vehicles.c.vehicle_id, to_tenant, to_vehicle_id))
    if write.row(taken) is not None:
        raise Conflict(f"tenant {to_tenant} has a vehicle {to_vehicle_id} already: name another for this car")
    gone = _name_is(transfers.c.from_tenant, transfers.c.from_vehicle_id, tenant, vehicle_id)
    if write.row(select(transfers).where(gone)) is not None:
        raise Conflict(f"vehicle {vehicle_id} of tenant {tenant} was transferred before")
    open_here = select(bindings).where(
        _name_is(bindings.c.tenant, bindings.c.vehicle_id, tenant, vehicle_id), bindings.c.to_ms.is_(None)
    )
    inside = write.row(open_here)
    if inside is not None:
        decommission(write, tenant, inside.device_id, f"its vehicle was transferred: {reason}")
    enrolment = enrol(write, authority, keyring, to_tenant, to_vehicle_id, None, days, csr)
    write.execute(
        update(vins)
        .where(_name_is(vins.c.tenant, vins.c.vehicle_id, tenant, vehicle_id))
        .values(tenant=to_tenant, vehicle_id=to_vehicle_id)
    )
    names = {"from_tenant": tenant, "from_vehicle_id": vehicle_id}
    names |= {"to_tenant": to_tenant, "to_vehicle_id": to_vehicle_id}
    write.execute(insert(transfers), names | {"at_ms": write.now_ms, "actor": write.actor, "reason": reason})
    # The audit of each tenant names its own side only.
    write.note("transfer_out", tenant, f"vehicle/{vehicle_id}", {"reason": reason})
    write.note("transfer_in", to_tenant, f"vehicle/{to_vehicle_id}", {"reason": reason})
    return enrolment


def _transfers_of(write: Write, tenant: str, vehicle_id: str) -> list[Transfer]:
    """Back and forth from this name. Each vehicle goes once, to a name that was new: there is no circle."""
    history: list[Transfer] = []
    name = (tenant, vehicle_id)
    while before := write.row(
        select(transfers).where(_name_is(transfers.c.to_tenant, transfers.c.to_vehicle_id, *name))
    ):
        history.insert(0, _transfer(before))
        name = (before.from_tenant, before.from_vehicle_id)
    name = (tenant, vehicle_id)
    while after := write.row(
        select(transfers).where(_name_is(transfers.c.from_tenant, transfers.c.from_vehicle_id, *name))
    ):
        history.append(_transfer(after))
        name = (after.to_tenant, after.to_vehicle_id)
    return history


def _transfer(row: Row[Any]) -> Transfer:
    names = (row.from_tenant, row.from_vehicle_id, row.to_tenant, row.to_vehicle_id)
    return Transfer(row.at_ms, *names, row.actor, row.reason)


def _name_is(
    tenant_column: Column[str], vehicle_column: Column[str], tenant: str, vehicle_id: str
) -> ColumnElement[bool]:
    return and_(tenant_column == tenant, vehicle_column == vehicle_id)


def _check_known(write: Write, tenant: str, vehicle_id: str) -> None:
    known = select(vehicles).where(_name_is(vehicles.c.tenant, vehicles.c.vehicle_id, tenant, vehicle_id))
    if write.row(known) is None:
        raise NotFound(_unknown(tenant, vehicle_id))


def _unknown(tenant: str, vehicle_id: str) -> str:
    return f"there is no vehicle {vehicle_id} of tenant {tenant}; `fleetgate vehicle list` shows all"
