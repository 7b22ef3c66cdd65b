"""The verdict of a soak: what grows is told from what is steady, noisy, or only warming up."""

from __future__ import annotations

import random

import pytest
from loadtest.bench.growth import Allowed, growth

TIMES = [10.0 * i for i in range(60)]
LITTLE = Allowed(0.02, 1.0)


def test_a_leak_is_growth() -> None:
    """A figure that rises by a tenth over the judged time is found, under noise of the same size."""
    rng = random.Random(1)
    assert growth(TIMES, [100 + i / 4 + rng.uniform(-5, 5) for i in range(60)], LITTLE).too_much


def test_noise_is_not_growth() -> None:
    """A steady figure with noise of five percent does not grow."""
    rng = random.Random(2)
    assert not growth(TIMES, [100 + rng.uniform(-5, 5) for _ in range(60)], LITTLE).too_much


def test_a_warm_up_is_not_growth() -> None:
    """What rises only in the first third is a cache that fills."""
    assert not growth(TIMES, [min(100.0, 50 + 4.0 * i) for i in range(60)], LITTLE).too_much


def test_a_peak_at_the_end_is_not_growth() -> None:
    """Three high samples at the end are outliers: a merge, or a segment being sealed."""
    assert not growth(TIMES, [100.0] * 57 + [400.0] * 3, LITTLE).too_much


def test_a_soak_that_is_too_short_is_not_judged() -> None:
    """Fewer than eight samples after the warm-up say nothing, and that is an error."""
    with pytest.raises(ValueError, match="soak longer"):
        growth(TIMES[:10], [1.0] * 10, LITTLE)
