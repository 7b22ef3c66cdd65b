"""Scores and states: what moves a device, what never does, and whose word stands."""

from __future__ import annotations

import pytest
from tests.units import NOW

from fleetgate.accept.standing import Part, Standing
from fleetgate.config import Policy
from fleetgate.control.records import DeviceState
from fleetgate.control.states import BY_MACHINE, View
from fleetgate.judge import Reason
from fleetgate.scoring import FROM_LOAD, MISHAPS, ON_THE_WAY, SIGNALS, Signal, total

T, W, Q, R, B = (
    DeviceState.TRUSTED, DeviceState.WATCHED, DeviceState.QUARANTINED, DeviceState.RELEASED, DeviceState.BANNED,
)  # fmt: skip
HALF_LIFE_MS = 600_000
POLICY = Policy(
    watched_score=50,
    quarantined_score=100,
    signals={
        "bad_mac": Signal(weight=10, half_life_seconds=600, at_most=1_000),
        "rollback": Signal(weight=30, half_life_seconds=60, at_most=60),
    },
)
HOUR_MS = 3_600_000


def scored(score: float, state: DeviceState = T) -> Standing:
    return Standing(state, 1, parts={"bad_mac": Part(score, NOW)})


def add(standing: Standing, name: str, count: int = 1, at: int = NOW, policy: Policy = POLICY) -> DeviceState | None:
    """Scores it, and says what that calls for."""
    return standing.due(at, policy) if standing.add(name, count, at, policy.signals) else None


def test_a_score_halves_in_its_half_life() -> None:
    """80 points are 40 ten minutes later, and 10 for the new refusal."""
    standing = scored(80)
    add(standing, "bad_mac", at=NOW + HALF_LIFE_MS)
    assert standing.score(NOW + HALF_LIFE_MS, POLICY) == pytest.approx(50)


def test_each_signal_fades_by_its_own_half_life() -> None:
    """Ten minutes later half of one is left, and a thousandth of the other."""
    standing = scored(40)
    add(standing, "rollback")
    assert standing.score(NOW, POLICY) == pytest.approx(70)
    assert standing.score(NOW + HALF_LIFE_MS, POLICY) == pytest.approx(20 + 30 / 1024)


def test_a_signal_makes_no_more_of_the_score_than_it_may() -> None:
    """However often it comes: such a one never quarantines by itself, and two together may."""
    standing = scored(0)
    assert add(standing, "rollback", 1_000) is W
    assert standing.score(NOW, POLICY) == 60
    assert add(standing, "bad_mac", 4) is Q


def test_a_score_does_not_grow_when_the_clock_goes_back() -> None:
    """A negative time has passed: the score stays as it was, and gets what is left of the weight by then."""
    standing = scored(40)
    add(standing, "bad_mac", at=NOW - HALF_LIFE_MS)
    assert standing.parts["bad_mac"].score == pytest.approx(45)
    assert standing.parts["bad_mac"].at == NOW


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
    assert add(scored(score, state), "bad_mac") == moved


@pytest.mark.parametrize("state", [T, W, R])
def test_the_table_has_those_steps_that_a_score_takes_and_no_other(state: DeviceState) -> None:
    """One that nobody takes would say that `released` passes by itself."""
    standings = [scored(score, state) for score in (0, 50, 100)]
    due = {T if standing.relaxed(NOW, POLICY) else standing.due(NOW, POLICY) for standing in standings}
    assert due - {None, state} == BY_MACHINE[state]


def test_a_quarantined_device_goes_on_being_scored() -> None:
    """So that a person sees what it did since."""
    standing = scored(100, Q)
    add(standing, "bad_mac", 3)
    assert standing.score(NOW, POLICY) == pytest.approx(130)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.CLOCK_AHEAD, Reason.TOO_OLD, Reason.BEHIND_WINDOW, Reason.STALE_EPOCH, Reason.RATE_LIMITED,
        Reason.UNKNOWN_DEVICE, Reason.SUSPENDED, Reason.REVOKED, Reason.BANNED,
    ],
)  # fmt: skip
def test_reasons_of_time_limits_and_records_are_no_signals(reason: Reason) -> None:
    """A drifting clock cannot put an honest device into quarantine, in any number."""
    standing = scored(0)
    assert not standing.add(reason.value, 10_000, NOW, Policy().signals)
    assert standing.score(NOW, POLICY) == 0


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_quarantines_by_itself_only_where_the_table_lets_it(name: str) -> None:
    """Ten thousand at once of one with an `at_most` below the threshold do not; of the others they do."""
    policy = Policy()
    may = policy.signals[name].at_most >= policy.quarantined_score
    assert (add(Standing(T, 0), name, 10_000, policy=policy) is Q) is may


@pytest.mark.parametrize(
    "names",
    [ON_THE_WAY, FROM_LOAD, MISHAPS, ON_THE_WAY | FROM_LOAD | MISHAPS],
    ids=["way", "load", "mishaps", "all"],
)
@pytest.mark.parametrize("threshold", [100.0, 150.0])
def test_what_needs_no_credential_watches_and_never_quarantines(names: frozenset[str], threshold: float) -> None:
    """All of it at once, by the share of the threshold. A hostile signal still adds to it."""
    policy, standing = Policy(quarantined_score=threshold), Standing(T, 0)
    calls_for = [add(standing, name, 10_000, policy=policy) for name in sorted(names)]
    assert calls_for[-1] is W
    assert Q not in calls_for
    assert add(standing, "epoch_overlap", policy=Policy()) is Q


def test_what_load_finds_out_leaves_room_for_a_change_of_network() -> None:
    """A spoofed receiver, and one session that went on: no more than the one or the other."""
    parts = {"implausible_data": 55.0, "impossible_travel": 44.0, "overlapping_sessions": 20.0}
    assert total(parts, 100.0) == 80.0
    assert total(parts | {"bad_mac": 35.0}, 100.0) == 115.0


def test_one_forged_message_an_hour_is_caught_at_the_third() -> None:
    """A prober that takes its time: the score of a day ago still counts."""
    standing = Standing(T, 0)
    states = [add(standing, "bad_mac", at=NOW + hour * HOUR_MS, policy=Policy()) for hour in range(3)]
    assert states == [None, W, Q]


def test_one_malformed_message_an_hour_is_watched_and_never_quarantined() -> None:
    """A release with a rare mistake in it is no attack, in a month."""
    standing = Standing(T, 0)
    states = {add(standing, "malformed_body", at=NOW + hour * HOUR_MS, policy=Policy()) for hour in range(30 * 24)}
    assert states == {None, W}


def test_what_is_reported_late_has_faded_by_then() -> None:
    """Load found it an hour after the message, in which its half-life has passed six times."""
    standing = scored(0)
    standing.parts["bad_mac"] = Part(0.0, NOW + HOUR_MS)
    standing.add("bad_mac", 1, NOW, POLICY.signals)
    assert standing.score(NOW + HOUR_MS, POLICY) == pytest.approx(10 / 64)


def test_a_signal_that_the_policy_gives_no_weight_scores_nobody() -> None:
    """So that one of them can be turned off."""
    policy = Policy(signals={"replay": Signal(weight=0)})
    assert not Standing(T, 0).add("replay", 99, NOW, policy.signals)


def test_the_records_stand_where_they_are_newer() -> None:
    """A person's decision, or another edge's step, is taken over if it stands over our own view."""
    standing = Standing(W, 1_000)
    taken = [standing.adopt(View(T, 999)), standing.adopt(View(W, 1_000)), standing.adopt(View(Q, 999))]
    assert (taken, standing.state, standing.state_at) == ([False, False, True], Q, 999)


def test_a_release_forgives_the_score() -> None:
    """Otherwise the next refusal would quarantine the released device again."""
    standing = scored(120, Q)
    standing.adopt(View(R, NOW + 1, NOW + 1))
    assert standing.parts == {}
    assert add(standing, "bad_mac", at=NOW + 2) is None


def test_what_happened_before_a_release_is_forgiven_when_it_is_reported_after_it() -> None:
    """Load was behind when the person decided, or the spool is replayed."""
    standing = Standing(R, NOW, NOW)
    standing.add("bad_mac", 50, NOW - 1, POLICY.signals)
    assert not standing.restore("bad_mac", Part(500.0, NOW - 1))
    assert standing.score(NOW, POLICY) == 0


def test_a_record_of_the_spool_brings_a_part_back_once() -> None:
    """The newest stands, in whatever order a checkpoint and the records behind it have them."""
    standing = scored(70)
    assert [standing.restore("bad_mac", Part(35.0, NOW - 1)), standing.restore("bad_mac", Part(105.0, NOW + 1))] == [
        False,
        True,
    ]
    assert standing.parts["bad_mac"] == Part(105.0, NOW + 1)


def test_a_watched_device_that_behaves_is_trusted_again() -> None:
    """Once its score is half of what made it watched, and not before; a quarantined one waits for a person."""
    watched, quarantined = scored(60, W), scored(120, Q)
    later = [NOW + minutes * 60_000 for minutes in (5, 11, 13)]
    assert [watched.relaxed(at, POLICY) for at in later] == [False, False, True]
    assert not quarantined.relaxed(NOW + 100 * HALF_LIFE_MS, POLICY)
