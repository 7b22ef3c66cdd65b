"""Who did what and why, as it is told afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lives import CAR, do, renewed

from fleetgate.control.audit import list_audit
from fleetgate.control.devices import revoke
from fleetgate.control.quarantine import decide, quarantine_for
from fleetgate.control.retirement import decommission, resume, suspend
from fleetgate.control.roster import show_device
from fleetgate.control.states import Classification, Decision

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate


def test_the_reason_of_a_suspension_is_told_with_its_time_and_who_it_was(car: Gate) -> None:
    """Whatever came after it."""
    do(car, suspend, *CAR, "in the workshop")
    at_ms = car.clock.ms
    car.clock.ms += 1000
    do(car, revoke, *CAR, "lost")
    shown = show_device(car.store, *CAR)
    assert [(taken.decision, taken.reason) for taken in shown.decisions] == [
        ("revoke", "lost"),
        ("suspend", "in the workshop"),
        ("enrol", None),
    ]
    taken = shown.kept_out_by
    assert taken is not None
    assert (taken.at_ms, taken.actor, taken.reason) == (at_ms, "test", "in the workshop")


def why(gate: Gate) -> str | None:
    taken = show_device(gate.store, *CAR).kept_out_by
    return None if taken is None else taken.reason


def test_what_keeps_a_device_out_is_told_of_each_status(car: Gate) -> None:
    """A ban counts more than a suspension; nothing keeps out who is active."""
    do(car, suspend, *CAR, "in the workshop")
    decide(car.store, *CAR, Decision.BAN, Classification.CONFIRMED, "test", "a clone")
    assert why(car) == "a clone"
    decide(car.store, *CAR, Decision.RELEASE, Classification.BENIGN, "test", "it was ours")
    do(car, resume, *CAR, "back")
    assert why(car) is None
    do(car, decommission, *CAR, "scrapped")
    assert why(car) == "scrapped"


def test_what_machines_do_and_renewals_are_no_decisions(car: Gate) -> None:
    """The audit has them."""
    renewed(car)
    do(car, quarantine_for, *CAR, "clone_sign", {"presented": "ab"}, "1")
    assert [taken.decision for taken in show_device(car.store, *CAR).decisions] == ["enrol"]
    newest, *others = list_audit(car.store, *CAR, last=10)
    assert (newest.action, newest.detail["presented"]) == ("transition", "ab")
    assert [entry.action for entry in others] == ["renew", "enrol"]


def test_the_audit_of_others_is_left_out(car: Gate) -> None:
    """By tenant, by device, and by how many are wanted."""
    car.enrol("bus")
    car.enrol("car", tenant="globex")

    def objects(tenant: str | None, device_id: str | None, last: int = 10) -> list[str]:
        return [f"{entry.tenant} {entry.object}" for entry in list_audit(car.store, tenant, device_id, last)]

    assert objects("acme", None) == ["acme device/bus-tcu", "acme device/car-tcu"]
    assert objects(None, "car-tcu") == ["globex device/car-tcu", "acme device/car-tcu"]
    assert objects(None, None, last=1) == ["globex device/car-tcu"]
