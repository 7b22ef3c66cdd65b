"""Quarantine on record: who may move a device where, once, and whose word stands."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from fleetgate.control.casenotes import Transition
from fleetgate.control.cases import list_cases, show_case_file
from fleetgate.control.quarantine import Origin, apply_transition, decide
from fleetgate.control.records import DeviceState, DeviceStatus
from fleetgate.control.schema import devices
from fleetgate.control.states import BY_MACHINE, Classification, Decision, Outcome
from fleetgate.errors import ConfigError, Conflict, NotFound

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

SPOOL = "ab" * 16
TRUSTED, WATCHED, QUARANTINED, RELEASED, BANNED = DeviceState


def transition(gate: Gate, after: str, offset: int = 44, **changed: Any) -> Outcome:
    """Applies a record of the edge, at the clock's time unless said otherwise."""
    values: dict[str, Any] = {
        "tenant": "acme",
        "device_id": "car-tcu",
        "before": "trusted",
        "after": after,
        "at_ms": gate.clock.ms,
        "why": "bad_mac",
        "score": 120.0,
        "policy_version": "1",
    }
    origin = Origin(changed.pop("spool", SPOOL), changed.pop("segment", 1), offset)
    values |= changed
    return apply_transition(gate.store, origin, Transition(**{"received_at_ms": values["at_ms"]} | values))


def decision(gate: Gate, what: Decision, finding: Classification = Classification.CONFIRMED) -> DeviceState:
    return decide(gate.store, "acme", "car-tcu", what, finding, "alice", "looked at it")


def put(gate: Gate, state: DeviceState) -> None:
    with gate.store.write("test") as write:
        write.execute(update(devices).values(state=state))


def standing(gate: Gate) -> tuple[DeviceStatus, DeviceState]:
    record = gate.store.devices([("acme", "car-tcu")])[("acme", "car-tcu")]
    return record.status, record.state


@pytest.mark.parametrize(("before", "after"), list(product(DeviceState, DeviceState)))
def test_machine_moves_a_device_only_along_its_table(gate: Gate, before: DeviceState, after: DeviceState) -> None:
    """A transition is applied if the table has it, and changes nothing otherwise."""
    gate.enrol()
    put(gate, before)
    possible = after in BY_MACHINE[before]
    expected = Outcome.APPLIED if possible else Outcome.CONFIRMED if after is before else Outcome.NOT_POSSIBLE
    assert transition(gate, after, at_ms=gate.clock.ms + 1) is expected
    assert standing(gate)[1] is (after if possible else before)


def test_transition_is_applied_once(gate: Gate) -> None:
    """The same record of the same spool, read again after a crash, changes nothing and is no new change."""
    gate.enrol()
    transition(gate, QUARANTINED)
    decision(gate, Decision.RELEASE)
    revision = gate.store.revision()
    assert transition(gate, QUARANTINED) is Outcome.REPEATED
    assert (standing(gate)[1], gate.store.revision()) == (RELEASED, revision)


def test_same_offset_of_another_spool_is_another_record(gate: Gate) -> None:
    """A replaced disk has another identity, so its records are not taken for repetitions."""
    gate.enrol()
    transition(gate, WATCHED)
    assert transition(gate, QUARANTINED, spool="cd" * 16) is Outcome.APPLIED


def test_decision_outlives_an_earlier_transition_that_arrives_late(gate: Gate) -> None:
    """What the edge saw before a person released the device does not put it back."""
    gate.enrol()
    transition(gate, QUARANTINED)
    gate.clock.ms += 1000
    decision(gate, Decision.RELEASE)
    assert transition(gate, QUARANTINED, 99, at_ms=gate.clock.ms - 500) is Outcome.OVERTAKEN
    assert standing(gate)[1] is RELEASED


def test_quarantine_that_arrives_late_stands_over_a_later_step_of_another_edge(gate: Gate) -> None:
    """An edge that did not know of it trusted the device meanwhile; no machine may let it out of quarantine."""
    gate.enrol()
    transition(gate, WATCHED, at_ms=gate.clock.ms + 10)
    assert transition(gate, QUARANTINED, 99, at_ms=gate.clock.ms + 5) is Outcome.APPLIED
    assert standing(gate)[1] is QUARANTINED


def test_step_that_arrives_behind_a_later_one_is_overtaken(gate: Gate) -> None:
    """Two edges' steps end the same, whichever is loaded first."""
    gate.enrol()
    transition(gate, WATCHED, at_ms=gate.clock.ms + 10)
    transition(gate, TRUSTED, 77, at_ms=gate.clock.ms + 20)
    assert transition(gate, WATCHED, 99, at_ms=gate.clock.ms + 15) is Outcome.OVERTAKEN
    assert standing(gate)[1] is TRUSTED


def test_released_device_that_misbehaves_again_is_quarantined_again(gate: Gate) -> None:
    """A release is no immunity: a transition after it counts, and opens a case of its own."""
    gate.enrol()
    transition(gate, QUARANTINED)
    decision(gate, Decision.RELEASE)
    gate.clock.ms += 1000
    assert transition(gate, QUARANTINED, 99) is Outcome.APPLIED
    assert [case.case_id for case in list_cases(gate.store)] == [2]


def test_transition_of_an_unknown_device_does_not_stop_the_loader(gate: Gate) -> None:
    """Records restored from an older copy may lack a device: that is told, and repeated as told."""
    assert transition(gate, QUARANTINED) is Outcome.UNKNOWN_DEVICE
    assert transition(gate, QUARANTINED) is Outcome.REPEATED


def test_state_that_this_version_does_not_know_does_not_stop_the_loader(gate: Gate) -> None:
    """A record with a word from another version is refused like an impossible step."""
    gate.enrol()
    assert transition(gate, "exiled") is Outcome.NOT_POSSIBLE


def test_transition_reaches_other_edges_with_its_time(gate: Gate) -> None:
    """An applied transition is a change that edges poll, and the record tells when it was."""
    gate.enrol()
    seen = gate.store.revision()
    gate.clock.ms += 5000
    transition(gate, QUARANTINED, at_ms=gate.clock.ms - 7)
    assert [(c.kind, c.device_id) for c in gate.store.changes_from(seen + 1, 9)] == [("transition", "car-tcu")]
    assert gate.store.devices([("acme", "car-tcu")])[("acme", "car-tcu")].state_at_ms == gate.clock.ms - 7


def test_watched_device_has_no_case(gate: Gate) -> None:
    """Only quarantine waits for a person."""
    gate.enrol()
    transition(gate, WATCHED)
    assert list_cases(gate.store, closed=True) == []


def test_quarantine_opens_a_case_with_its_why(gate: Gate) -> None:
    """The reviewer sees which device, since when, for what, at which score and under which policy."""
    gate.enrol()
    transition(gate, QUARANTINED, why="equivocation", score=125.0)
    case = list_cases(gate.store, "acme")[0]
    assert (case.device_id, case.vehicle_id, case.state, case.opened_at_ms, case.why, case.score) == (
        "car-tcu",
        "car",
        "quarantined",
        gate.clock.ms,
        "equivocation",
        125.0,
    )


def test_release_closes_the_case_and_keeps_the_decision(gate: Gate) -> None:
    """Who decided what, and why, stays readable after the case is closed."""
    gate.enrol()
    transition(gate, QUARANTINED)
    decision(gate, Decision.RELEASE, Classification.FALSE_POSITIVE)
    file = show_case_file(gate.store, "acme", "car-tcu", gate.clock.ms)
    assert (list_cases(gate.store), file.cases[0].closed_at_ms) == ([], gate.clock.ms)
    assert [(d.case_id, d.decision, d.classification, d.actor, d.comment) for d in file.decisions] == [
        (1, "release", "false_positive", "alice", "looked at it")
    ]


def test_ban_keeps_the_device_out(gate: Gate) -> None:
    """A ban is state and status: the edge refuses the device instead of holding its messages."""
    gate.enrol()
    assert decision(gate, Decision.BAN) is BANNED
    assert standing(gate) == (DeviceStatus.BANNED, BANNED)


def test_release_lifts_a_ban(gate: Gate) -> None:
    """A ban that was a mistake can be taken back."""
    gate.enrol()
    decision(gate, Decision.BAN)
    decision(gate, Decision.RELEASE, Classification.FALSE_POSITIVE)
    assert standing(gate) == (DeviceStatus.ACTIVE, RELEASED)


def test_release_does_not_lift_a_suspension(gate: Gate) -> None:
    """Ban and release of a suspended device leave it suspended."""
    gate.enrol()
    with gate.store.write("test") as write:
        write.execute(update(devices).values(status=DeviceStatus.SUSPENDED))
    decision(gate, Decision.BAN)
    decision(gate, Decision.RELEASE)
    assert standing(gate) == (DeviceStatus.SUSPENDED, RELEASED)


@pytest.mark.parametrize(
    ("state", "what"),
    [(TRUSTED, Decision.RELEASE), (RELEASED, Decision.RELEASE), (BANNED, Decision.BAN)],
)
def test_decision_without_an_object_is_a_conflict(gate: Gate, state: DeviceState, what: Decision) -> None:
    """A decision that would change nothing is told instead of recorded."""
    gate.enrol()
    put(gate, state)
    with pytest.raises(Conflict, match=f"is {state}"):
        decision(gate, what)


@pytest.mark.parametrize("finding", [Classification.BENIGN, Classification.FALSE_POSITIVE])
def test_harmless_device_is_not_banned(gate: Gate, finding: Classification) -> None:
    """A finding that contradicts the decision is refused."""
    gate.enrol()
    with pytest.raises(ConfigError, match="confirmed"):
        decision(gate, Decision.BAN, finding)


def test_decision_on_an_unknown_device_is_not_found(gate: Gate) -> None:
    """Nobody is banned by a typing mistake."""
    with pytest.raises(NotFound):
        decision(gate, Decision.BAN)
