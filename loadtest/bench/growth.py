"""Whether something grows: the verdict of a soak, from samples over time.

Decides by the slopes between all pairs of samples (Theil and Sen), which a few outliers do not move, and of these by
the lower end of the 95 % interval, so that noise is not taken for growth. The beginning is cut off: caches fill,
buffers find their size. What is sampled is `soak`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

WARM_UP_SHARE = 0.3
LEAST_SAMPLES = 8
Z_95 = 1.96


class Allowed(NamedTuple):
    """Growth over the judged time that is still none: a share of the median, and an amount that is always allowed."""

    share: float
    amount: float


class Growth(NamedTuple):
    """Of one figure: its median, how much it surely grew over the judged time, how much it may."""

    median: float
    grown: float
    allowed: float

    @property
    def too_much(self) -> bool:
        return self.grown > self.allowed


def enough(samples: int) -> bool:
    """Whether so many can be judged: 8 after the warm-up."""
    return samples - int(samples * WARM_UP_SHARE) >= LEAST_SAMPLES


def growth(at_s: Sequence[float], values: Sequence[float], allowed: Allowed) -> Growth:
    """Raises ValueError with fewer than 8 samples after the warm-up."""
    first = int(len(values) * WARM_UP_SHARE)
    times, judged = np.array(at_s[first:]), np.array(values[first:])
    if not enough(len(values)):
        raise ValueError(f"{len(judged)} samples after the warm-up are too few to judge: soak longer")
    i, j = np.triu_indices(len(judged), 1)
    slopes = np.sort((judged[j] - judged[i]) / (times[j] - times[i]))
    n = len(judged)
    spread = Z_95 * np.sqrt(n * (n - 1) * (2 * n + 5) / 18)  # of Kendall's S, from which Sen's interval follows
    surely = float(slopes[max(0, int((len(slopes) - spread) / 2))])
    median = float(np.median(judged))
    return Growth(median, surely * float(times[-1] - times[0]), allowed.share * median + allowed.amount)


def judge(
    at_s: Sequence[float], series: Mapping[str, Sequence[float]], limits: Mapping[str, Allowed]
) -> dict[str, Growth]:
    """`growth` of each series by name."""
    return {name: growth(at_s, values, limits[name]) for name, values in series.items()}
