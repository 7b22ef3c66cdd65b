"""Which held events a decision gives back: those of its case, however edges and people overlapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.control.test_quarantine_record import decision, transition

from fleetgate.control.cases import show_case_file
from fleetgate.control.records import DeviceState
from fleetgate.control.releases import EARLIER_MS, NO_END_MS, Case, Release, releases_of, releases_since, spans
from fleetgate.control.states import Classification, Decision, Outcome

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

BENIGN, FALSE_POSITIVE, CONFIRMED = Classification
QUARANTINED, WATCHED = DeviceState.QUARANTINED, DeviceState.WATCHED


def later(gate: Gate, ms: int = 1_000) -> int:
    gate.clock.ms += ms
    return gate.clock.ms


def given_back(gate: Gate) -> list[tuple[int, int]]:
    return [(release.from_ms, release.until_ms) for release in releases_since(gate.store, 0)]


@pytest.mark.parametrize("finding", [BENIGN, FALSE_POSITIVE])
def test_a_release_gives_back_what_its_case_held(car: Gate, finding: Classification) -> None:
    """From the opening of the case on, and what a clock said was earlier, with no end while there is no other; by the
    name that `show` tells."""
    opened = later(car)
    transition(car, QUARANTINED)
    at_ms = later(car)
    decision(car, Decision.RELEASE, finding)
    name = f"1-{at_ms}"
    assert releases_of(car.store, "acme", "car-tcu") == [
        Release(1, name, "acme", "car-tcu", opened - EARLIER_MS, NO_END_MS)
    ]
    assert show_case_file(car.store, "acme", "car-tcu", car.store.clock.now_ms()).decisions[0].name == name
    assert releases_since(car.store, 1) == releases_since(car.store, 0)
    assert releases_since(car.store, 2) == releases_of(car.store, "acme", "another") == []


def test_what_was_confirmed_stays_held(car: Gate) -> None:
    """It is evidence, though the device is let out."""
    transition(car, QUARANTINED)
    decision(car, Decision.RELEASE, CONFIRMED)
    assert given_back(car) == []


def test_the_next_case_ends_it(car: Gate) -> None:
    """What is held from then on is of that, and is given back by a decision on that."""
    first = later(car)
    transition(car, QUARANTINED, 1)
    later(car)
    decision(car, Decision.RELEASE, BENIGN)
    second = later(car)
    transition(car, QUARANTINED, 2)
    assert given_back(car) == [(first - EARLIER_MS, second)]
    decision(car, Decision.RELEASE, BENIGN)
    assert given_back(car) == [(first - EARLIER_MS, second), (second, NO_END_MS)]


def test_the_confirmed_case_before_is_none_of_it(car: Gate) -> None:
    """Nor what was held right after that decision, before edges knew of it."""
    transition(car, QUARANTINED, 1)
    decision(car, Decision.RELEASE, CONFIRMED)
    second = later(car)
    transition(car, QUARANTINED, 2)
    decision(car, Decision.RELEASE, FALSE_POSITIVE)
    assert given_back(car) == [(second, NO_END_MS)]


def test_a_decision_by_a_clock_that_is_ahead_gives_back_no_more(car: Gate) -> None:
    """The second quarantine is later than the decision in what stands, and began before it by the edge's clock."""
    first = later(car)
    transition(car, QUARANTINED, 1)
    second = later(car)
    car.clock.ms += 5_000
    decision(car, Decision.RELEASE, BENIGN)
    assert transition(car, QUARANTINED, 2, at_ms=car.clock.ms + 1, received_at_ms=second) is Outcome.APPLIED
    assert given_back(car) == [(first - EARLIER_MS, second)]


def test_lifting_a_ban_is_about_what_it_was_for(car: Gate) -> None:
    """A person who banned the device and finds that to be wrong gives back what was held before the ban."""
    opened = later(car)
    transition(car, QUARANTINED)
    decision(car, Decision.BAN)
    assert given_back(car) == []
    later(car)
    decision(car, Decision.RELEASE, FALSE_POSITIVE)
    assert given_back(car) == [(opened - EARLIER_MS, NO_END_MS)]


def test_another_edge_may_have_held_since_before(car: Gate) -> None:
    """Its own transition comes after that of the first edge, and is of an earlier time: the case began then."""
    earlier = later(car)
    later(car)
    transition(car, QUARANTINED, 1)
    assert transition(car, QUARANTINED, 2, at_ms=earlier) is Outcome.CONFIRMED
    later(car)
    decision(car, Decision.RELEASE, BENIGN)
    assert given_back(car) == [(earlier - EARLIER_MS, NO_END_MS)]
    assert transition(car, QUARANTINED, 3, at_ms=earlier - 1) is Outcome.OVERTAKEN
    assert given_back(car) == [(earlier - 1 - EARLIER_MS, NO_END_MS)]


def test_an_edge_that_held_before_it_learned_of_a_release_from_watch(car: Gate) -> None:
    """The decision had no case; what the edge held meanwhile gets one, which that decision closed."""
    transition(car, WATCHED, 1)
    held_since = later(car)
    later(car)
    decision(car, Decision.RELEASE, BENIGN)
    assert given_back(car) == []
    assert transition(car, QUARANTINED, 2, at_ms=held_since) is Outcome.OVERTAKEN
    assert given_back(car) == [(held_since - EARLIER_MS, NO_END_MS)]
    [case] = show_case_file(car.store, "acme", "car-tcu", car.store.clock.now_ms()).cases
    assert (case.opened_at_ms, case.closed_at_ms) == (held_since, held_since + 1_000)


BEFORE_BAN, BEHIND_BAN = -100, 150
"""The step of an edge that has not heard of a ban, by its clock against the time of the ban."""


@pytest.mark.parametrize("heard_last", [False, True])
@pytest.mark.parametrize("steps", [[BEFORE_BAN], [BEHIND_BAN], [BEFORE_BAN, BEHIND_BAN], [BEHIND_BAN, BEFORE_BAN]])
def test_what_was_held_by_an_edge_that_had_not_heard_of_a_ban_comes_back_when_it_is_lifted(
    car: Gate, steps: list[int], *, heard_last: bool
) -> None:
    """The ban had no case; what edges held gets one, of the ban and of the release that lifts it. Whether their steps
    were before the ban or behind it, and whether control hears of them before the release or after; once."""
    banned = later(car)
    decision(car, Decision.BAN)

    def hear() -> None:
        for number, step in enumerate(steps):
            transition(car, QUARANTINED, number, at_ms=banned + step)
            transition(car, QUARANTINED, number, at_ms=banned + step)  # what a crash repeats
        if not heard_last:
            assert given_back(car) == []

    def lift() -> None:
        later(car)
        decision(car, Decision.RELEASE, FALSE_POSITIVE)

    for act in (lift, hear) if heard_last else (hear, lift):
        act()
    assert given_back(car) == [(banned + min(steps) - EARLIER_MS, NO_END_MS)]
    [case] = show_case_file(car.store, "acme", "car-tcu", car.store.clock.now_ms()).cases
    assert case.closed_at_ms is not None
    assert case.opened_at_ms <= case.closed_at_ms


def test_what_is_held_behind_a_ban_is_not_of_the_case_before(car: Gate) -> None:
    """Which was released; nor is it of a quarantine after the ban was lifted. Each comes back by its own decision."""
    first = later(car)
    transition(car, QUARANTINED, 1)
    decision(car, Decision.RELEASE, BENIGN)
    held = later(car) + BEHIND_BAN
    decision(car, Decision.BAN)
    assert transition(car, QUARANTINED, 2, at_ms=held) is Outcome.NOT_POSSIBLE
    assert given_back(car) == [(first - EARLIER_MS, held)]
    later(car)
    decision(car, Decision.RELEASE, FALSE_POSITIVE)
    again = later(car)
    assert transition(car, QUARANTINED, 3) is Outcome.APPLIED
    assert given_back(car) == [(first - EARLIER_MS, held), (held, again)]


def test_a_ban_that_was_right_keeps_what_was_held_behind_it(car: Gate) -> None:
    """Lifted as confirmed: it stays evidence. A watch that an edge began behind it held nothing, and has no case."""
    banned = later(car)
    decision(car, Decision.BAN)
    transition(car, WATCHED, 1, at_ms=banned + BEHIND_BAN)
    assert show_case_file(car.store, "acme", "car-tcu", banned).cases == []
    transition(car, QUARANTINED, 2, at_ms=banned + BEHIND_BAN)
    later(car)
    decision(car, Decision.RELEASE, CONFIRMED)
    assert given_back(car) == []


def test_a_clock_that_was_set_right_since_releases_nothing_that_nobody_decided_on(car: Gate) -> None:
    """The first case was opened an hour ahead; what is held for the second one waits, also when that hour has come."""
    now_ms = car.clock.ms
    transition(car, QUARANTINED, 1, at_ms=now_ms + 3_600_000)
    decision(car, Decision.RELEASE, BENIGN)
    at_ms = now_ms + 3_600_002  # newer than the decision, as an edge makes it
    assert transition(car, QUARANTINED, 2, at_ms=at_ms, received_at_ms=now_ms + 600_000) is Outcome.APPLIED
    [(_, until_ms)] = given_back(car)
    assert until_ms == now_ms + 600_000


def test_what_was_held_behind_a_clock_that_was_set_back_comes_back(car: Gate) -> None:
    """By four seconds, which no edge doubts: it seems to be from before the case."""
    transition(car, QUARANTINED, 1)
    later(car)
    decision(car, Decision.RELEASE, BENIGN)
    [(from_ms, _)] = given_back(car)
    assert from_ms < car.clock.ms - 4_000


_CASES = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9) | st.none()), min_size=1, max_size=8)


@given(_CASES, st.permutations(range(8)))
def test_what_was_held_is_of_one_case_and_of_none_before_its_turn(
    found: list[tuple[int, int | None]], numbers: list[int]
) -> None:
    """Whatever the clocks said: no two cases have the same, whoever waits has all since it was opened, and between
    cases nothing is lost."""
    cases = [
        Case(numbers[place], opened_ms, None if decided is None else 10 * decided + place)
        for place, (opened_ms, decided) in enumerate(found)
    ]
    owned = spans(cases)
    turns = sorted(cases, key=lambda case: (case.decided is None, case.decided or 0, case.case_id))
    ways = [owned[case.case_id] for case in turns]
    assert all(from_ms <= until_ms for from_ms, until_ms in ways)
    assert [until_ms for _, until_ms in ways] == [*(from_ms for from_ms, _ in ways[1:]), NO_END_MS]
    assert ways[0][0] <= min(case.opened_at_ms for case in cases)
    for place, case in enumerate(turns):
        assert all(until_ms <= case.opened_at_ms for _, until_ms in ways[:place])
