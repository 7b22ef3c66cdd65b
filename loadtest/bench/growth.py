"""Whether something grows: the verdict of a soak, from samples over time.

Decides by the median of the slopes between all pairs of samples (Theil and Sen), which a few outliers do not move, over
what is left when the beginning is cut off: caches fill, buffers find their size. What is sampled is `soak`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

WARM_UP_SHARE = 0.3
LEAST_SAMPLES = 8


class Allowed(NamedTuple):
    """Growth over the judged time that is still none: a share of the median, and an amount that is always allowed."""

    share: float
    amount: float


class Growth(NamedTuple):
    """Of one figure: its median, how much it grew over the judged time, how much it may."""

    median: float
    grown: float
    allowed: float

    @property
    def too_much(self) -> bool:
        return self.grown > self.allowed


def growth(at_s: Sequence[float], values: Sequence[float], allowed: Allowed) -> Growth:
    """Raises ValueError with fewer than 8 samples after the warm-up."""
    first = int(len(values) * WARM_UP_SHARE)
    times, judged = np.array(at_s[first:]), np.array(values[first:])
    if len(judged) < LEAST_SAMPLES:
        raise ValueError(f"{len(judged)} samples after the warm-up are too few to judge: soak longer")
    i, j = np.triu_indices(len(judged), 1)
    slope = float(np.median((judged[j] - judged[i]) / (times[j] - times[i])))
    median = float(np.median(judged))
    return Growth(median, slope * float(times[-1] - times[0]), allowed.share * median + allowed.amount)


def judge(
    at_s: Sequence[float], series: Mapping[str, Sequence[float]], limits: Mapping[str, Allowed]
) -> dict[str, Growth]:
    """`growth` of each series by name."""
    return {name: growth(at_s, values, limits[name]) for name, values in series.items()}
