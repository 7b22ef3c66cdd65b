"""Scores and states: what moves a device, what never does, and whose word stands."""

from __future__ import annotations

import pytest
from tests.units import NOW

from fleetgate.accept.standing import Standing
from fleetgate.config import Policy
from fleetgate.control.records import DeviceState
from fleetgate.judge import Reason

T, W, Q, R, B = (
    DeviceState.TRUSTED, DeviceState.WATCHED, DeviceState.QUARANTINED, DeviceState.RELEASED, DeviceState.BANNED,
)  # fmt: skip
POLICY = Policy(score_half_life_seconds=600, watched_score=50, quarantined_score=100)
HALF_LIFE_MS = 600_000


def scored(score: float, state: DeviceState = T) -> Standing:
    return Standing(state, 1, score, NOW)


def test_a_score_halves_in_its_half_life() -> None:
    """80 points are 40 ten minutes later, and 10 for the new refusal."""
    standing = scored(80)
    standing.add(Reason.BAD_MAC, 1, NOW + HALF_LIFE_MS, POLICY)
    assert standing.score == pytest.approx(50)


def test_a_score_does_not_grow_when_the_clock_goes_back() -> None:
    """A negative time has passed: the score stays as it was, and gets its weight."""
    standing = scored(40)
    standing.add(Reason.BAD_MAC, 1, NOW - HALF_LIFE_MS, POLICY)
    assert standing.score == pytest.approx(50)


@pytest.mark.parametrize(
    ("score", "state", "moved"),
    [
        (39.9, T, None),
        (40, T, W),
        (40, W, None),
        (40, R, W),
        (89.9, W, None),
        (90, W, Q),
        (90, T, Q),
        (90, R, Q),
        (500, Q, None),
        (500, B, None),
    ],
)
def test_thresholds_move_a_device_once(score: float, state: DeviceState, moved: DeviceState | None) -> None:
    """From 50 it is watched, from 100 quarantined; a quarantined or banned one is not moved by its score."""
    assert scored(score, state).add(Reason.BAD_MAC, 1, NOW, POLICY) == moved


def test_a_quarantined_device_goes_on_being_scored() -> None:
    """So that a person sees what it did since."""
    standing = scored(100, Q)
    standing.add(Reason.BAD_MAC, 3, NOW, POLICY)
    assert standing.score == pytest.approx(130)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.CLOCK_AHEAD, Reason.TOO_OLD, Reason.BEHIND_WINDOW, Reason.STALE_EPOCH, Reason.RATE_LIMITED,
        Reason.UNKNOWN_DEVICE, Reason.SUSPENDED, Reason.REVOKED, Reason.BANNED,
    ],
)  # fmt: skip
def test_reasons_of_time_limits_and_records_score_nobody(reason: Reason) -> None:
    """A drifting clock or a busy hour cannot put an honest device into quarantine, in any number."""
    standing = scored(0)
    assert (standing.add(reason, 10_000, NOW, Policy()), standing.score) == (None, 0)


@pytest.mark.parametrize("reason", [Reason(name) for name in Policy().weights])
def test_enough_of_a_scoring_reason_quarantines(reason: Reason) -> None:
    """Each reason that has a weight gets there in the end."""
    assert scored(0).add(reason, 20, NOW, Policy()) is Q


def test_the_weights_are_reasons() -> None:
    """A misspelt weight would silently score nothing."""
    assert set(Policy().weights) <= {reason.value for reason in Reason}


def test_the_newer_of_two_views_stands() -> None:
    """A person's decision, or another edge's, is taken over if it is newer than our own."""
    standing = Standing(W, 1_000)
    taken = [standing.adopt(Q, 999), standing.adopt(Q, 1_000), standing.adopt(Q, 1_001)]
    assert (taken, standing.state, standing.state_at) == ([False, False, True], Q, 1_001)


def test_a_release_forgives_the_score() -> None:
    """Otherwise the next refusal would quarantine the released device again."""
    standing = Standing(Q, 1_000, 120.0, NOW)
    standing.adopt(R, 2_000)
    assert (standing.score, standing.add(Reason.BAD_MAC, 1, NOW, POLICY)) == (0.0, None)


def test_a_watched_device_that_behaves_is_trusted_again() -> None:
    """Once its score is half of what made it watched, and not before; a quarantined one waits for a person."""
    watched, quarantined = scored(60, W), scored(120, Q)
    later = [NOW + minutes * 60_000 for minutes in (5, 11, 13)]
    assert [watched.relaxed(at, POLICY) for at in later] == [False, False, True]
    assert not quarantined.relaxed(NOW + 100 * HALF_LIFE_MS, POLICY)
