"""How a run went over time, from its journals: events due and acknowledged per second, and percentiles of latency.

Decides how wide a point of a chart is: a second, or wider in a long run, so that a chart has at most some hundred.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from loadtest.messages import Array, Messages, latency_ms, percentile
from loadtest.samples import Series

_POINTS = 240


class Timeline:
    """Series of the honest devices of a run."""

    def __init__(self, messages: Messages, started_s: float, seconds: float) -> None:
        self._width_s = max(1.0, seconds / _POINTS)
        self._started_s = started_s
        self._edges = (
            np.arange(max(int(seconds / self._width_s), 1) + 1) * self._width_s
        )  # a part of one looks like a fall
        self._ended_s = started_s + seconds
        self._acknowledged, self._waited, self._due = messages.acknowledged, messages.waited, messages.due

    def due_per_s(self) -> Series:
        """Events that the plan wanted sent."""
        return self._per_s(self._due, "due_s")

    def acknowledged_per_s(self) -> Series:
        """Events whose acknowledgement came."""
        return self._per_s(self._acknowledged, "answered_s")

    def latency_ms(self, percent: float) -> Series:
        """Of the messages that were due in each interval."""
        due_s = self._waited["due_s"] - self._started_s
        order = np.argsort(due_s, kind="stable")
        waits = latency_ms(self._waited, self._ended_s)[order]
        places = np.searchsorted(due_s[order], self._edges)
        found = [
            (float(begin), value)
            for begin, (low, high) in zip(self._edges, pairwise(places), strict=False)
            if (value := percentile(waits[low:high], percent)) is not None
        ]
        return Series([at for at, _ in found], [value for _, value in found])

    def _per_s(self, records: Array, when: str) -> Series:
        counts, _ = np.histogram(records[when] - self._started_s, self._edges, weights=records["events"])
        return Series(self._edges[:-1].tolist(), (counts / self._width_s).tolist())
