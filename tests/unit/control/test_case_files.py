"""What a case is about, and which devices were found harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleetgate.control import quarantine
from fleetgate.control.audit import list_audit
from fleetgate.control.cases import LEAD_MS, found_harmless, list_cases, show_case_file
from fleetgate.control.quarantine import Origin, apply_transition, decide, release_cases
from fleetgate.control.states import Classification, Decision, Outcome
from fleetgate.load.records import transition_of
from fleetgate.spool.format import TransitionRecord

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

DAY_MS = 24 * 3600 * 1000
CAR = ("acme", "car-tcu")


def moved(
    gate: Gate, after: str, number: int, device_id: str = CAR[1], why: str = "bad_mac", at_ms: int | None = None
) -> Outcome:
    record = TransitionRecord("acme", device_id, "trusted", after, at_ms or gate.clock.ms, why, 120.0, "1")
    return apply_transition(gate.store, Origin("ab" * 16, 1, number), transition_of(record))


def decided(gate: Gate, finding: Classification, decision: Decision = Decision.RELEASE) -> None:
    decide(gate.store, *CAR, decision, finding, "alice", "looked at it")


def test_a_case_is_about_what_led_to_it_and_what_followed(car: Gate) -> None:
    """From a week before, until now or its end; its transitions, oldest first, with the policy they were made under."""
    moved(car, "watched", 1)
    car.clock.ms += 1000
    moved(car, "quarantined", 2)
    opened_ms = car.clock.ms
    car.clock.ms += DAY_MS
    file = show_case_file(car.store, *CAR, car.clock.ms)
    assert (file.shown_from_ms, file.shown_to_ms) == (opened_ms - LEAD_MS, car.clock.ms)
    assert [(one.at_ms, one.after, one.why, one.score, one.policy_version) for one in file.transitions] == [
        (opened_ms - 1000, "watched", "bad_mac", 120.0, "1"),
        (opened_ms, "quarantined", "bad_mac", 120.0, "1"),
    ]
    decided(car, Classification.CONFIRMED)
    closed_ms = car.clock.ms
    car.clock.ms += DAY_MS
    assert show_case_file(car.store, *CAR, car.clock.ms).shown_to_ms == closed_ms


def test_the_next_case_begins_where_the_one_before_ended(car: Gate) -> None:
    """What was decided already is not evidence again."""
    moved(car, "quarantined", 1)
    car.clock.ms += 1000
    decided(car, Classification.BENIGN)
    closed_ms = car.clock.ms
    car.clock.ms += 1000
    moved(car, "quarantined", 2)
    file = show_case_file(car.store, *CAR, car.clock.ms)
    assert (file.shown_from_ms, [one.at_ms for one in file.transitions]) == (closed_ms, [car.clock.ms])


def test_a_ban_after_a_closed_case_is_shown_and_what_follows_it(car: Gate) -> None:
    """What is refused while it is banned; and once the ban is lifted, up to then."""
    moved(car, "quarantined", 1)
    car.clock.ms += 1000
    decided(car, Classification.CONFIRMED)
    car.clock.ms += DAY_MS
    decided(car, Classification.CONFIRMED, Decision.BAN)
    car.clock.ms += DAY_MS
    assert show_case_file(car.store, *CAR, car.clock.ms).shown_to_ms == car.clock.ms
    decided(car, Classification.CONFIRMED)
    lifted_ms = car.clock.ms
    car.clock.ms += DAY_MS
    assert show_case_file(car.store, *CAR, car.clock.ms).shown_to_ms == lifted_ms


def test_a_device_that_was_banned_without_a_case_is_listed(car: Gate) -> None:
    """Among all there are; nobody has to decide it."""
    decided(car, Classification.CONFIRMED, Decision.BAN)
    assert list_cases(car.store) == []
    assert list_cases(car.store, "other", closed=True) == []
    [ban] = list_cases(car.store, "acme", closed=True)
    assert (ban.case_id, ban.device_id, ban.state, ban.why) == (None, CAR[1], "banned", "ban")
    assert ban.opened_at_ms == ban.closed_at_ms


def test_a_device_without_a_case_shows_its_last_week(car: Gate) -> None:
    """One that was watched, and never more."""
    moved(car, "watched", 1)
    car.clock.ms += DAY_MS
    assert [one.after for one in show_case_file(car.store, *CAR, car.clock.ms).transitions] == ["watched"]
    car.clock.ms += LEAD_MS
    assert show_case_file(car.store, *CAR, car.clock.ms).transitions == []


def test_a_device_is_harmless_by_the_last_decision_about_it(car: Gate) -> None:
    """Until then, and not before some time has passed."""
    moved(car, "quarantined", 1)
    car.clock.ms += 1000
    decided(car, Classification.FALSE_POSITIVE)
    at_ms = car.clock.ms
    assert found_harmless(car.store, 0, at_ms) == found_harmless(car.store, at_ms + 1, at_ms + 2) == []
    assert found_harmless(car.store, at_ms, at_ms + 1) == [(*CAR, at_ms)]
    car.clock.ms += 1000
    moved(car, "quarantined", 2)
    assert found_harmless(car.store, 0, car.clock.ms) == []  # somebody must look at it again
    car.clock.ms += 1000
    decided(car, Classification.CONFIRMED)
    assert found_harmless(car.store, 0, car.clock.ms + DAY_MS) == []


def test_a_surge_is_released_in_one_go(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is in quarantine for that signal, each with a line in the audit; who was decided meanwhile is left."""
    monkeypatch.setattr(quarantine, "BATCH", 2)
    monkeypatch.setattr(quarantine, "PAUSE_SECONDS", 0)
    names = [gate.enrol(vehicle=f"car-{number}").device_id for number in range(5)]
    for number, name in enumerate(names):
        moved(gate, "quarantined", number, name, "malformed_body" if number else "bad_mac")
    cases = list_cases(gate.store, "acme", why="malformed_body")
    assert [case.device_id for case in cases] == names[:0:-1]
    decide(gate.store, "acme", names[1], Decision.BAN, Classification.CONFIRMED, "alice", "tampered")
    assert release_cases(gate.store, cases, Classification.FALSE_POSITIVE, "bob", "the release") == 3
    assert [case.device_id for case in list_cases(gate.store)] == names[:1]
    audit = [entry.object for entry in list_audit(gate.store, "acme", None, 99) if entry.action == "release"]
    assert sorted(audit) == [f"device/{name}" for name in names[2:]]
    assert release_cases(gate.store, cases, Classification.FALSE_POSITIVE, "bob", "once more") == 0


def test_a_step_that_is_told_again_without_a_signal_names_none(car: Gate) -> None:
    """Its score has faded meanwhile: the case stays about what led to it."""
    opened_ms = car.clock.ms
    moved(car, "quarantined", 1, why="malformed_body")
    again = "recorded again as control does not show it"
    assert moved(car, "quarantined", 2, why=again, at_ms=opened_ms) is Outcome.CONFIRMED
    assert [case.why for case in list_cases(car.store)] == ["malformed_body"]


def test_a_case_names_what_turns_up_after_it_was_opened(car: Gate) -> None:
    """Told by the same edge or another; each signal once, and the time that the case is about stays."""
    moved(car, "quarantined", 1, why="malformed_body")
    opened_ms = car.clock.ms
    car.clock.ms += 1000
    for number, why in enumerate(("malformed_body", "malformed_body, equivocation", "bad_mac, equivocation"), 2):
        assert moved(car, "quarantined", number, why=why, at_ms=opened_ms) is Outcome.CONFIRMED
    [case] = list_cases(car.store)
    assert (case.why, case.opened_at_ms) == ("malformed_body, equivocation, bad_mac", opened_ms)
    assert case.updated_at_ms == car.clock.ms


def test_a_clone_is_not_released_with_the_fleet(gate: Gate) -> None:
    """Whoever is there for another signal too is not listed; one that shows it meanwhile is left."""
    names = [gate.enrol(vehicle=f"car-{number}").device_id for number in range(3)]
    for number, name in enumerate(names):
        moved(gate, "quarantined", number, name, "malformed_body")
    moved(gate, "quarantined", 3, names[0], "malformed_body, equivocation")
    cases = list_cases(gate.store, "acme", why="malformed_body")
    assert [case.device_id for case in cases] == names[:0:-1]
    moved(gate, "quarantined", 4, names[1], "malformed_body, bad_mac")
    assert release_cases(gate.store, cases, Classification.FALSE_POSITIVE, "bob", "the release") == 1
    assert [case.device_id for case in list_cases(gate.store)] == names[1::-1]


def test_a_decision_stands_over_what_is_told_late_of_the_quarantine_that_it_ended(car: Gate) -> None:
    """The edge had not heard of it: the record has the time of its step."""
    moved(car, "quarantined", 1, why="malformed_body")
    opened_ms = car.clock.ms
    car.clock.ms += 1000
    decided(car, Classification.FALSE_POSITIVE)
    car.clock.ms += 1000
    assert moved(car, "quarantined", 2, why="malformed_body, equivocation", at_ms=opened_ms) is Outcome.OVERTAKEN
    assert list_cases(car.store) == []
