"""The cases themselves, as far as they can be looked at without load."""

from __future__ import annotations

import msgspec
from loadtest.bench import judge_case
from loadtest.bench.context import FULL, QUICK, medians
from loadtest.bench.run import CASES
from loadtest.bench.sketch_case import encode_bodies


def test_sustained_runs_after_chatty() -> None:
    """Its rate is half of what chatty reached."""
    order = list(CASES)
    assert order.index("chatty") < order.index("sustained")


def test_quick_is_nowhere_larger_than_full() -> None:
    """It is for a look, and stays under three minutes."""
    assert all(quick <= full for quick, full in zip(QUICK, FULL, strict=True))


def test_the_median_of_the_rounds_counts() -> None:
    """One round that a neighbour disturbed does not move the figure."""
    assert medians([{"a": 1.0}, {"a": 100.0}, {"a": 2.0}]) == {"a": 2.0}


def test_judge_gives_the_figures_that_are_asked_for() -> None:
    """By their names in the JSON."""
    [figures] = judge_case.rounds(1)
    assert set(figures) == {"accepted_us", "floor_us", "ratio_to_floor", "forged_us", "garbage_us"}


def test_the_sketch_gets_bodies_of_its_own_shape() -> None:
    """As many events as the edge's, 8 signals each; the kind is a number, and different messages differ."""
    bodies = [msgspec.msgpack.decode(raw, strict=False) for raw in encode_bodies(60)]
    assert {(len(events), len(event), event[1], len(event[2])) for *_, events in bodies for event in events} == {
        (60, 3, 0, 8)
    }
    assert len({str(body) for body in bodies}) > 1
