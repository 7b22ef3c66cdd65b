"""Which held events a decision gives back: those of its case, however edges and people overlapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.control.test_quarantine_record import decision, transition

from fleetgate.control.cases import show_case_file
from fleetgate.control.records import DeviceState
from fleetgate.control.releases import NO_END_MS, Release, releases_of, releases_since
from fleetgate.control.states import Classification, Decision, Outcome

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

BENIGN, FALSE_POSITIVE, CONFIRMED = Classification
QUARANTINED, WATCHED = DeviceState.QUARANTINED, DeviceState.WATCHED


def later(gate: Gate, ms: int = 1_000) -> int:
    gate.clock.ms += ms
    return gate.clock.ms


def spans(gate: Gate) -> list[tuple[int, int]]:
    return [(release.from_ms, release.until_ms) for release in releases_since(gate.store, 0)]


@pytest.mark.parametrize("finding", [BENIGN, FALSE_POSITIVE])
def test_a_release_gives_back_what_its_case_held(car: Gate, finding: Classification) -> None:
    """From the opening of the case on, with no end while there is no other; by the name that `show` tells."""
    opened = later(car)
    transition(car, QUARANTINED)
    at_ms = later(car)
    decision(car, Decision.RELEASE, finding)
    name = f"1-{at_ms}"
    assert releases_of(car.store, "acme", "car-tcu") == [Release(1, name, "acme", "car-tcu", opened, NO_END_MS)]
    assert show_case_file(car.store, "acme", "car-tcu", car.store.clock.now_ms()).decisions[0].name == name
    assert releases_since(car.store, 1) == releases_since(car.store, 0)
    assert releases_since(car.store, 2) == releases_of(car.store, "acme", "another") == []


def test_what_was_confirmed_stays_held(car: Gate) -> None:
    """It is evidence, though the device is let out."""
    transition(car, QUARANTINED)
    decision(car, Decision.RELEASE, CONFIRMED)
    assert spans(car) == []


def test_the_next_case_ends_it(car: Gate) -> None:
    """What is held from then on is of that, and is given back by a decision on that."""
    first = later(car)
    transition(car, QUARANTINED, 1)
    later(car)
    decision(car, Decision.RELEASE, BENIGN)
    second = later(car)
    transition(car, QUARANTINED, 2)
    assert spans(car) == [(first, second)]
    decision(car, Decision.RELEASE, BENIGN)
    assert spans(car) == [(first, second), (second, NO_END_MS)]


def test_the_confirmed_case_before_is_none_of_it(car: Gate) -> None:
    """Nor what was held right after that decision, before edges knew of it."""
    transition(car, QUARANTINED, 1)
    decision(car, Decision.RELEASE, CONFIRMED)
    second = later(car)
    transition(car, QUARANTINED, 2)
    decision(car, Decision.RELEASE, FALSE_POSITIVE)
    assert spans(car) == [(second, NO_END_MS)]


def test_a_decision_by_a_clock_that_is_ahead_gives_back_no_more(car: Gate) -> None:
    """The second quarantine is later than the decision in what stands, and began before it by the edge's clock."""
    first = later(car)
    transition(car, QUARANTINED, 1)
    second = later(car)
    car.clock.ms += 5_000
    decision(car, Decision.RELEASE, BENIGN)
    assert transition(car, QUARANTINED, 2, at_ms=car.clock.ms + 1, received_at_ms=second) is Outcome.APPLIED
    assert spans(car) == [(first, second)]


def test_lifting_a_ban_is_about_what_it_was_for(car: Gate) -> None:
    """A person who banned the device and finds that to be wrong gives back what was held before the ban."""
    opened = later(car)
    transition(car, QUARANTINED)
    decision(car, Decision.BAN)
    assert spans(car) == []
    later(car)
    decision(car, Decision.RELEASE, FALSE_POSITIVE)
    assert spans(car) == [(opened, NO_END_MS)]


def test_another_edge_may_have_held_since_before(car: Gate) -> None:
    """Its own transition comes after that of the first edge, and is of an earlier time: the case began then."""
    earlier = later(car)
    later(car)
    transition(car, QUARANTINED, 1)
    assert transition(car, QUARANTINED, 2, at_ms=earlier) is Outcome.CONFIRMED
    later(car)
    decision(car, Decision.RELEASE, BENIGN)
    assert spans(car) == [(earlier, NO_END_MS)]
    assert transition(car, QUARANTINED, 3, at_ms=earlier - 1) is Outcome.OVERTAKEN
    assert spans(car) == [(earlier - 1, NO_END_MS)]


def test_an_edge_that_held_before_it_learned_of_a_release_from_watch(car: Gate) -> None:
    """The decision had no case; what the edge held meanwhile gets one, which that decision closed."""
    transition(car, WATCHED, 1)
    held_since = later(car)
    later(car)
    decision(car, Decision.RELEASE, BENIGN)
    assert spans(car) == []
    assert transition(car, QUARANTINED, 2, at_ms=held_since) is Outcome.OVERTAKEN
    assert spans(car) == [(held_since, NO_END_MS)]
    [case] = show_case_file(car.store, "acme", "car-tcu", car.store.clock.now_ms()).cases
    assert (case.opened_at_ms, case.closed_at_ms) == (held_since, held_since + 1_000)
