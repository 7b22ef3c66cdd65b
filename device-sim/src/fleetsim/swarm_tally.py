"""Decides what a swarm remembers of its answers: counts by label and a histogram of latencies, in constant memory.

What is measured, and from when to when, is `swarm`'s; what a figure is good for, the reader's.
"""

from collections import Counter

import numpy as np

# Buckets 1 % wide from 1 us to 100 s: a percentile is wrong by at most 1 %, in 15 KB.
_PER_E_FOLD = 100
_BUCKETS = int(np.log(1e8) * _PER_E_FOLD) + 1
# Latencies wait in a list and go to numpy in bulk: 0.04 us each instead of 3 us.
_PENDING = 65_536


class Histogram:
    """Latencies in seconds. `add` is all that the hot path calls; `settle` now and then keeps it bounded."""

    def __init__(self) -> None:
        self._pending: list[float] = []
        self._counts = np.zeros(_BUCKETS, np.int64)
        self._largest_s = 0.0
        self.add = self._pending.append

    def settle(self, at_least: int = _PENDING) -> None:
        """Count what is pending, if it is at least this many."""
        if len(self._pending) < max(1, at_least):
            return
        seconds = np.array(self._pending)
        self._pending.clear()
        self._largest_s = max(self._largest_s, float(seconds.max()))
        buckets = (np.log(np.maximum(seconds * 1e6, 1.0)) * _PER_E_FOLD).astype(np.int64)
        self._counts += np.bincount(np.minimum(buckets, _BUCKETS - 1), minlength=_BUCKETS)

    def merge(self, other: "Histogram") -> None:
        """Count another one's latencies too."""
        other.settle(1)
        self._counts += other._counts
        self._largest_s = max(self._largest_s, other._largest_s)

    def percentile_ms(self, percent: float) -> float | None:
        """Milliseconds that so many percent of the latencies do not exceed; None without any."""
        self.settle(1)
        total = int(self._counts.sum())
        if not total:
            return None
        bucket = int(np.searchsorted(np.cumsum(self._counts), total * percent / 100))
        return min(float(np.exp((bucket + 1) / _PER_E_FOLD)) / 1000, self._largest_s * 1000)

    def report(self) -> dict[str, float]:
        """p50, p99 and the largest, in milliseconds; empty without any."""
        p50, p99 = self.percentile_ms(50), self.percentile_ms(99)
        if p50 is None or p99 is None:
            return {}
        return {"p50": round(p50, 3), "p99": round(p99, 3), "max": round(self._largest_s * 1000, 3)}


class Tally:
    """What became of the messages: `accepted` counts alone because it is on the hot path, `others` by label."""

    def __init__(self) -> None:
        self.accepted = 0
        self.others: Counter[str] = Counter()
        self.latency = Histogram()

    def answers(self) -> dict[str, int]:
        """Answers by label, most frequent first."""
        return dict((Counter({"accepted": self.accepted}) + self.others).most_common())
