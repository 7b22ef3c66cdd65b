"""What a quarantine is said to be for: nothing that keeps a device there goes unnamed, whoever chose the last event."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gates import Gate, record
from tests.units import NOW

from fleetgate.accept.breaker import NEVER_EXCUSED
from fleetgate.accept.causes import causes
from fleetgate.accept.standing import Part
from fleetgate.config import Policy
from fleetgate.control.records import DeviceState
from fleetgate.control.states import View
from fleetgate.scoring import SIGNALS, total
from fleetgate.spool.reader import read_segments

POLICY = Policy()
DAY_MS = 24 * 3_600_000


@pytest.mark.parametrize(
    ("scores", "named"),
    [
        ({"malformed_body": 100.0}, ["malformed_body"]),
        ({"malformed_body": 70.0, "bad_mac": 35.0}, ["malformed_body"]),
        ({"bad_mac": 70.0, "malformed_body": 30.0}, ["bad_mac"]),
        ({"malformed_body": 150.0, "bad_mac": 105.0, "replay": 90.0}, ["malformed_body", "bad_mac"]),
        ({"equivocation": 80.0, "malformed_body": 30.0}, ["equivocation"]),
        ({"malformed_body": 150.0, "equivocation": 40.0}, ["equivocation", "malformed_body"]),
        ({"malformed_body": 100.0, "overlapping_sessions": 4.9}, ["malformed_body"]),
        ({"bad_mac": 60.0, "epoch_overlap": 50.0, "equivocation": 40.0}, ["epoch_overlap", "equivocation"]),
        ({"bad_mac": 99.0}, []),
    ],
)
def test_what_keeps_a_device_in_quarantine_is_named(scores: dict[str, float], named: list[str]) -> None:
    """Each clone sign, and as many others as it takes; the leading first."""
    assert causes(scores, POLICY) == named


@given(st.dictionaries(st.sampled_from(sorted(SIGNALS)), st.floats(0, 200)))
def test_whoever_is_there_for_one_signal_would_not_be_there_without_it(scores: dict[str, float]) -> None:
    """So what forgives that signal forgives all; and whoever belongs there has a cause."""
    named = causes(scores, POLICY)
    left = {signal: score for signal, score in scores.items() if signal not in named}
    assert total(left, POLICY.quarantined_score) < POLICY.quarantined_score
    assert all(left[signal] < POLICY.watched_score / 10 for signal in left.keys() & NEVER_EXCUSED)
    assert named or total(scores, POLICY.quarantined_score) < POLICY.quarantined_score


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "spool")
    yield gate
    gate.close()


def see(gate: Gate, signal: str, times: int = 1) -> None:
    for _ in range(times):
        gate.clock.ms += 1
        gate.scores.score(gate.known(), signal, 1, gate.clock.ms, gate.clock.ms)


def told(gate: Gate) -> list[tuple[str, str]]:
    """(state, why) of all that was recorded, oldest first."""
    gate.intake.commit()
    gate.spool.writer.seal()
    segments = read_segments(gate.spool.directory / "segments", 0)
    return [(found.after, found.why) for segment in segments for _, found in segment.transitions]


def test_a_clone_that_tips_over_with_the_fleets_mistake_is_there_as_a_clone(gate: Gate) -> None:
    """It chooses what it does last, and would go out with the fleet."""
    see(gate, "equivocation", 2)
    see(gate, "malformed_body", 3)
    assert told(gate)[-1] == ("quarantined", "equivocation")


def test_what_a_device_in_quarantine_turns_out_to_be_is_told_once(gate: Gate) -> None:
    """No state changes any more, but its case has to name it; a flood of the same writes nothing further."""
    see(gate, "malformed_body", 11)
    since = gate.known().standing.state_at
    see(gate, "malformed_body", 11)
    see(gate, "bad_mac", 2)
    assert told(gate)[-1] == ("quarantined", "malformed_body")
    see(gate, "equivocation", 5)
    see(gate, "bad_mac", 5)
    whys = [why for state, why in told(gate) if state == "quarantined"]
    assert whys == ["malformed_body", "malformed_body, equivocation", "malformed_body, equivocation, bad_mac"]
    [*_, newest] = read_segments(gate.spool.directory / "segments", 0)
    assert {found.at for _, found in newest.transitions} == {since}


def test_what_comes_and_goes_by_turns_is_told_once(gate: Gate) -> None:
    """Which of two leads changes; what was named stays named."""
    see(gate, "malformed_body", 11)
    for _ in range(5):
        gate.clock.ms += DAY_MS
        see(gate, "bad_mac", 6)
        gate.clock.ms += DAY_MS
        see(gate, "malformed_body", 20)
    whys = [why for state, why in told(gate) if state == "quarantined"]
    assert whys == ["malformed_body", "malformed_body, bad_mac"]


def test_an_edge_tells_of_a_quarantine_that_another_began(gate: Gate) -> None:
    """Also where its own score is none for quarantine: one clone sign is enough."""
    known = gate.known()
    known.told_causes = ["equivocation"]  # of a former one
    gate.fleet.update(known, record(state=DeviceState.QUARANTINED, state_at_ms=NOW - 5))
    assert known.standing.state is DeviceState.QUARANTINED
    see(gate, "bad_mac")
    see(gate, "equivocation")
    assert told(gate) == [("quarantined", "equivocation")]


def test_a_quarantine_that_was_held_back_names_what_it_is_for(gate: Gate) -> None:
    """Not what came last, nor what its cohort was held for alone."""
    known = gate.known()
    known.standing.adopt(View(DeviceState.WATCHED, NOW))
    parts = {"malformed_body": 150.0, "bad_mac": 105.0}
    known.standing.parts |= {signal: Part(score, NOW) for signal, score in parts.items()}
    gate.scores.taken(known)
    assert told(gate)[-1] == ("quarantined", "malformed_body, bad_mac")


def test_a_step_that_is_recorded_again_says_what_it_was_for(gate: Gate) -> None:
    """As long as that has not faded: its case is decided on like others."""
    known = gate.known()
    known.standing.adopt(View(DeviceState.QUARANTINED, NOW))
    known.standing.parts["bad_mac"] = Part(140.0, NOW)
    gate.scores.tell_again(known)
    gate.clock.ms += 30 * DAY_MS
    known.told_at = 0
    gate.scores.tell_again(known)
    gate.scores.tell_again(known)
    assert told(gate) == [("quarantined", "bad_mac"), ("quarantined", "recorded again as control does not show it")]
