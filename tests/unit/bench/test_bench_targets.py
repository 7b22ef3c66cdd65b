"""The targets are held to the figures they name, and each case has its own."""

from __future__ import annotations

import pytest
from loadtest.bench.run import CASES
from loadtest.bench.targets import TARGETS, Target, of

YARDSTICKS = {"sketch", "sketch_batched"}
INFORMATION = {"load_mixed"}  # random values in random signals: no promise speaks of such a fleet


def test_every_other_case_has_targets() -> None:
    """A case without one would be a number nobody has to explain."""
    assert set(TARGETS) == set(CASES) - YARDSTICKS - INFORMATION


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (Target("a", "<=", 2), True),
        (Target("a", "<=", 1.9), False),
        (Target("a", ">=", 2), True),
        (Target("a", ">=", 2.1), False),
        (Target("a", "<=", 0.5, "b"), True),
        (Target("a", "<=", 1 / 3, "b"), False),
    ],
)
def test_a_bound_is_a_number_or_a_multiple_of_another_figure(target: Target, met: bool) -> None:
    """With a = 2 and b = 4."""
    assert target.met({"a": 2.0, "b": 4.0}) is met


def test_a_figure_without_a_target_has_none() -> None:
    """Most figures only explain the others."""
    assert of("chatty", "rss_mb") is None
    assert of("chatty", "ratio_to_sketch") == Target("ratio_to_sketch", "<=", 1.35)
