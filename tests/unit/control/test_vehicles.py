"""A vehicle goes from one tenant to another; who it is, is told to those who may know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select
from tests.lives import actions, do, standing

from fleetgate.control.devices import Enrolment
from fleetgate.control.roster import list_devices
from fleetgate.control.schema import audit, transfers, vins
from fleetgate.control.store import Store
from fleetgate.control.vehicles import Car, identify, list_vehicles, set_vin, transfer
from fleetgate.errors import ConfigError, Conflict, ControlAway, NotFound

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

VIN = "WVWZZZ1JZXW000001"


def move(gate: Gate, source: tuple[str, str], target: tuple[str, str]) -> Enrolment:
    gate.clock.ms += 1000
    made: Enrolment = do(gate, transfer, gate.authority, gate.keyring, *source, *target, "sold")
    return made


def test_the_old_device_ends_and_the_new_tenant_has_its_own(car: Gate) -> None:
    """Each tenant has its side on record, and neither learns of the other's."""
    made = move(car, ("acme", "car"), ("umbra", "u-1"))
    assert (made.tenant, made.vehicle_id, made.device_id) == ("umbra", "u-1", "u-1-tcu")
    assert [(d.tenant, d.device_id, d.standing) for d in list_devices(car.store)] == [
        ("acme", "car-tcu", "decommissioned"),
        ("umbra", "u-1-tcu", "active"),
    ]
    assert [(v.tenant, v.vehicle_id, v.device_id) for v in list_vehicles(car.store)] == [
        ("acme", "car", None),
        ("umbra", "u-1", "u-1-tcu"),
    ]
    details = {row.tenant: row.detail for row in car.store.rows(select(audit.c.tenant, audit.c.detail))}
    assert "umbra" not in details["acme"]
    assert "acme" not in details["umbra"]


def test_the_vin_goes_along(car: Gate) -> None:
    """It stands at one vehicle at a time."""
    do(car, set_vin, "acme", "car", VIN)
    move(car, ("acme", "car"), ("umbra", "u-1"))
    assert [tuple(row) for row in car.store.rows(select(vins))] == [("umbra", "u-1", VIN)]


def test_the_history_can_be_followed_from_each_of_its_names(car: Gate) -> None:
    """By those who may, and the audit says that they did."""
    do(car, set_vin, "acme", "car", VIN)
    names = [("acme", "car"), ("umbra", "u-1"), ("acme", "car-again")]
    move(car, names[0], names[1])
    move(car, names[1], names[2])
    found: list[Car] = [do(car, identify, *name) for name in names]
    assert [one.vin for one in found] == [None, None, VIN]
    assert found[0].transfers == found[1].transfers == found[2].transfers
    assert [(one.from_tenant, one.to_vehicle_id) for one in found[0].transfers] == [
        ("acme", "u-1"),
        ("umbra", "car-again"),
    ]
    assert actions(car)[-3:] == [f"identify {tenant} vehicle/{vehicle}" for tenant, vehicle in names]


def test_a_reader_cannot_follow_it(car: Gate) -> None:
    """As little as it can read VINs."""
    move(car, ("acme", "car"), ("umbra", "u-1"))
    with Store.open(car.config, car.clock) as reader, pytest.raises(ControlAway):
        reader.rows(select(transfers))


def test_a_vehicle_that_is_gone_is_not_used_again(car: Gate) -> None:
    """Its pseudonym stands for a car that others have."""
    move(car, ("acme", "car"), ("umbra", "u-1"))
    with pytest.raises(Conflict, match="transferred"):
        car.enrol("car", "tcu-2")
    with pytest.raises(Conflict, match="transferred"):
        move(car, ("acme", "car"), ("umbra", "u-2"))


def test_it_needs_a_name_that_is_new(car: Gate) -> None:
    """Two cars would be one."""
    car.enrol("u-1", tenant="umbra")
    with pytest.raises(Conflict, match="already"):
        move(car, ("acme", "car"), ("umbra", "u-1"))
    with pytest.raises(Conflict, match="already"):
        move(car, ("acme", "car"), ("acme", "u-1"))
    with pytest.raises(NotFound, match="vehicle list"):
        move(car, ("acme", "ghost"), ("umbra", "u-2"))
    assert standing(car) == "active"


@pytest.mark.parametrize("vin", ["", "WVWZZZ1JZXW00000", "WVWZZZ1JZXW00000I", "wvwzzz1jzxw000001"])
def test_what_is_no_vin_is_refused(car: Gate, vin: str) -> None:
    """Before it is stored."""
    with pytest.raises(ConfigError, match="17"):
        do(car, set_vin, "acme", "car", vin)


def test_a_vehicle_has_one_vin(car: Gate) -> None:
    """It does not change, and no audit entry has it."""
    do(car, set_vin, "acme", "car", VIN)
    with pytest.raises(Conflict, match="another vehicle"):
        do(car, set_vin, "acme", "car", VIN)
    assert not any(VIN in row.detail for row in car.store.rows(select(audit.c.detail)))
