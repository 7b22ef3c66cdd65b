"""How a device pauses, ends and gives its place to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.lives import CAR, actions, do, standing, statuses

from fleetgate.control.quarantine import decide
from fleetgate.control.records import CredentialStatus, DeviceStatus
from fleetgate.control.retirement import decommission, replace, resume, suspend
from fleetgate.control.roster import list_devices, show_device
from fleetgate.control.states import Classification, Decision
from fleetgate.control.vehicles import show_vehicle
from fleetgate.errors import ConfigError, Conflict, NotFound

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

ACTIVE, FORMER, REVOKED = CredentialStatus


def test_a_suspended_device_is_kept_out_until_it_is_resumed(car: Gate) -> None:
    """Its credential is untouched."""
    do(car, suspend, *CAR, "in the workshop")
    assert (standing(car), statuses(car)) == ("suspended", [ACTIVE])
    do(car, resume, *CAR, "back")
    assert (standing(car), actions(car)[1:]) == (
        "active",
        ["suspend acme device/car-tcu", "resume acme device/car-tcu"],
    )


def test_only_what_is_suspended_can_be_resumed(car: Gate) -> None:
    """And only what is active be suspended."""
    with pytest.raises(Conflict, match="nothing to resume"):
        do(car, resume, *CAR, "a test")
    do(car, suspend, *CAR, "a test")
    with pytest.raises(Conflict, match="already"):
        do(car, suspend, *CAR, "a test")


def test_a_resumption_lifts_no_ban(car: Gate) -> None:
    """Each is lifted by its own command."""
    do(car, suspend, *CAR, "a test")
    decide(car.store, *CAR, Decision.BAN, Classification.CONFIRMED, "test", "a test")
    with pytest.raises(Conflict, match="quarantine release"):
        do(car, resume, *CAR, "a test")
    assert standing(car) == "banned"


@pytest.mark.parametrize("act", [suspend, resume, decommission])
def test_it_needs_a_known_device_and_a_reason(car: Gate, act: Any) -> None:
    """A typing mistake is told."""
    with pytest.raises(NotFound, match="device list"):
        do(car, act, "acme", "ghost", "a test")
    with pytest.raises(ConfigError, match="reason"):
        do(car, act, *CAR, " ")


def test_a_decommissioned_device_has_no_credential_and_no_vehicle(car: Gate) -> None:
    """Its history stays."""
    car.clock.ms += 1000
    do(car, decommission, *CAR, "scrapped")
    shown = show_device(car.store, *CAR)
    assert (shown.standing, shown.vehicle_id, statuses(car)) == ("decommissioned", None, [REVOKED])
    assert [(b.vehicle_id, b.to_ms) for b in shown.bindings] == [("car", car.clock.ms)]


def test_re_enrolment_after_decommissioning(car: Gate) -> None:
    """Into another vehicle, with new keys; the old credential stays revoked."""
    do(car, decommission, *CAR, "taken out")
    car.enrol("bus", "car-tcu")
    assert (standing(car), statuses(car)) == ("active", [ACTIVE, REVOKED])
    assert show_device(car.store, *CAR).vehicle_id == "bus"


def test_decommissioning_launders_no_ban(car: Gate) -> None:
    """Who was banned is so when it comes back."""
    decide(car.store, *CAR, Decision.BAN, Classification.CONFIRMED, "test", "a test")
    do(car, decommission, *CAR, "a test")
    with pytest.raises(Conflict):
        car.enrol()


def test_twice_is_a_conflict(car: Gate) -> None:
    """The first time stands."""
    do(car, decommission, *CAR, "scrapped")
    with pytest.raises(Conflict, match="already"):
        do(car, decommission, *CAR, "scrapped")


def swap(gate: Gate, by: str = "tcu-2", device: str = "car-tcu") -> None:
    gate.clock.ms += 1000
    do(gate, replace, gate.authority, gate.keyring, "acme", device, by, "broken")


def test_the_vehicle_keeps_its_history(car: Gate) -> None:
    """The old binding closes when the new one opens; the old unit is ended."""
    swap(car)
    sat = show_vehicle(car.store, "acme", "car").devices
    assert [(one.device_id, one.to_ms) for one in sat] == [("tcu-2", None), ("car-tcu", car.clock.ms)]
    assert sat[0].from_ms == car.clock.ms
    assert (standing(car), standing(car, "tcu-2")) == ("decommissioned", "active")
    assert actions(car)[1:] == ["decommission acme device/car-tcu", "enrol acme device/tcu-2"]


def test_the_old_unit_can_go_into_another_vehicle(car: Gate) -> None:
    """After it was mended."""
    swap(car)
    car.enrol("bus", "car-tcu")
    assert show_device(car.store, *CAR).vehicle_id == "bus"


def test_a_unit_that_sits_elsewhere_is_no_replacement(car: Gate) -> None:
    """Nothing of it is done."""
    car.enrol("bus")
    with pytest.raises(Conflict):
        swap(car, "bus-tcu")
    assert standing(car) == "active"


def test_a_unit_does_not_replace_itself_or_one_in_no_vehicle(car: Gate) -> None:
    """The first is a renewal, the second nothing."""
    with pytest.raises(Conflict, match="renew"):
        swap(car, "car-tcu")
    do(car, decommission, *CAR, "scrapped")
    with pytest.raises(Conflict, match="no vehicle"):
        swap(car)


def test_quarantined_and_banned_devices_are_told_apart_in_the_list(car: Gate) -> None:
    """One word says what a device is to an edge."""
    words = [list_devices(car.store)[0].standing]
    decide(car.store, *CAR, Decision.BAN, Classification.CONFIRMED, "test", "a test")
    words.append(list_devices(car.store)[0].standing)
    assert words == ["active", "banned"]
    assert list_devices(car.store)[0].status == DeviceStatus.BANNED
