"""Which readings are flagged; the lies a well-authenticated unit may tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetgate.catalogue import Catalogue, Signal
from fleetgate.load.plausibility import SHORTEST_STEP_S, implausible

CATALOGUE = Catalogue(
    (
        Signal(1, "Speed", "km/h", min=-250, max=500, rate=80),
        Signal(2, "Free", ""),
        Signal(3, "Level", "percent", min=0, max=100),
    )
)
Event = tuple[int, int, dict[int, float]]  # message, ms, readings


def flagged(*events: Event) -> list[tuple[int, int]]:
    """(index of the event, signal) of each flagged reading."""
    counts = np.array([len(readings) for _, _, readings in events], np.int64)
    ids = np.array([number for _, _, readings in events for number in readings], np.uint16)
    values = np.array([value for _, _, readings in events for value in readings.values()], np.float64)
    times = np.array([at for _, at, _ in events], np.int64)
    messages = np.array([message for message, _, _ in events], np.int64)
    found = implausible(ids, values, counts, times, messages, CATALOGUE)
    owners = np.repeat(np.arange(len(events)), counts)
    return [(int(owners[place]), int(ids[place])) for place in np.flatnonzero(found)]


@pytest.mark.parametrize(
    ("value", "wrong"),
    [(500.0, False), (500.1, True), (-250.0, False), (-250.1, True), (1.7e308, True), (np.inf, True), (np.nan, True)],
)
def test_a_value_beyond_its_bounds_is_flagged(value: float, wrong: bool) -> None:
    """The bounds themselves are plausible; what lies beyond, and what is no number, is not."""
    assert bool(flagged((0, 0, {1: value}))) is wrong


def test_infinity_is_implausible_without_bounds() -> None:
    """A signal without bounds still cannot be infinite."""
    assert flagged((0, 0, {2: -np.inf})) == [(0, 2)]


def test_a_leap_is_flagged_where_it_lands() -> None:
    """A change faster than the catalogue's rate flags the later reading; the one after it compares with the lie."""
    assert flagged((0, 0, {1: 50.0, 3: 50.0}), (0, 1000, {1: 129.0, 3: 99.0}), (0, 2000, {1: 210.0, 3: 1.0})) == [
        (2, 1)
    ]


def test_a_leap_is_found_across_events_of_other_signals() -> None:
    """Events that name other signals in between hide nothing."""
    assert flagged((0, 0, {1: 0.0}), (0, 500, {3: 5.0}), (0, 900, {}), (0, 1000, {3: 5.0, 1: 100.0})) == [(3, 1)]


def test_messages_are_judged_apart() -> None:
    """The first reading of a message has nothing before it, whatever another vehicle's message said."""
    assert flagged((0, 0, {1: 0.0}), (1, 1, {1: 400.0}), (1, 1001, {1: 401.0})) == []


def test_two_values_at_one_instant_are_no_infinite_rate() -> None:
    """Readings at the same time may differ by what the shortest step allows."""
    step = 80 * SHORTEST_STEP_S
    assert flagged((0, 0, {1: 0.0}), (0, 0, {1: step}), (0, 0, {1: 3 * step})) == [(2, 1)]


def test_the_difference_of_extremes_does_not_overflow() -> None:
    """From the least to the largest f64 is a leap, and no warning."""
    assert (1, 1) in flagged((0, 0, {1: -1.7e308}), (0, 1000, {1: 1.7e308}))


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 3000), st.dictionaries(st.integers(1, 3), st.floats(-600, 600), max_size=3)
    ),
    max_size=12,
)


@given(events=EVENTS)
def test_vectors_and_a_loop_flag_the_same(events: list[Event]) -> None:
    """For any messages, regular or not, the arrays agree with a loop over the readings."""
    events.sort(key=lambda event: event[0])
    before: dict[tuple[int, int], tuple[int, float]] = {}
    expected = []
    for index, (message, at, readings) in enumerate(events):
        for number, value in readings.items():
            signal = next(signal for signal in CATALOGUE.signals if signal.number == number)
            wrong = (signal.min is not None and value < signal.min) or (signal.max is not None and value > signal.max)
            if signal.rate is not None and (message, number) in before:
                then, was = before[message, number]
                wrong |= abs(value - was) > signal.rate * max(abs(at - then) / 1000, SHORTEST_STEP_S)
            before[message, number] = (at, value)
            if wrong:
                expected.append((index, number))
    assert flagged(*events) == expected
