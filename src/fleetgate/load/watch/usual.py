"""What was usual: of each series the median of its looks in the last half hour, and how far they scatter around it; of
each signal the shape of its values.

Decides how long is remembered. What was told as a change is not given to it, so that trouble does not become usual by
lasting. Median and median absolute deviation: half of the looks may be anything.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LOOKS = 180
"""Half an hour of looks: longer than trouble takes to show, shorter than the hours of a day take to change."""

LEAST_LOOKS = 60
"""Ten minutes: before that nothing is known, and nothing is a change. A fleet that starts at once warms up together."""

RENEW_LOOKS = 6
"""The medians are computed anew once a minute."""

NORMAL = 1.4826
"""From the median absolute deviation to the standard deviation of a normal distribution."""


MEMORY_LOOKS = 20
"""A shape is that of about the last three minutes: it follows an engine that warms up, and not a step."""

Array = NDArray[np.float64]


class Middle(NamedTuple):
    """Arrays beside one another: how many looks are known, their median and scatter (NaN for none)."""

    looks: NDArray[np.float64]
    median: NDArray[np.float64]
    scatter: NDArray[np.float64]


class Usual:
    """The memory of many series; each has a place in it."""

    def __init__(self) -> None:
        self._ring = np.full((LOOKS, 64), np.nan)
        self._turn = 0
        self._used = 0
        self._middle = Middle(np.zeros(64), np.full(64, np.nan), np.full(64, np.nan))
        self._renewed = 0

    def place(self, zeros: int = 0) -> int:
        """A place for a new series, of which `zeros` looks are known already: nothing of it happened."""
        place = self._used
        self._used += 1
        if place == self._ring.shape[1]:
            self._ring = np.concatenate([self._ring, np.full_like(self._ring, np.nan)], axis=1)
            self._middle = Middle(*[np.resize(part, 2 * place) for part in self._middle])
        zeros = min(zeros, LOOKS)
        self._ring[np.arange(self._turn - zeros, self._turn) % LOOKS, place] = 0.0
        for part, known in zip(self._middle, (float(zeros), 0.0, 0.0), strict=True):
            part[place] = known if zeros or part is self._middle.looks else np.nan
        return place

    def forget(self, place: int) -> None:
        """The series begins anew."""
        self._ring[:, place] = np.nan
        self._middle.looks[place] = 0

    def known(self) -> NDArray[np.bool_]:
        """Of each place, whether there is anything to remember."""
        found: NDArray[np.bool_] = ~np.isnan(self._ring[:, : self._used]).all(axis=0)
        return found

    def keep(self, places: NDArray[np.int64]) -> None:
        """These only, which are numbered anew in this order."""
        self._used = len(places)
        room = max(64, 2 * self._used)
        ring = np.full((LOOKS, room), np.nan)
        ring[:, : self._used] = self._ring[:, places]
        self._ring = ring
        blanks = (0.0, np.nan, np.nan)
        middle = [np.full(room, blank) for blank in blanks]
        for new, old in zip(middle, self._middle, strict=True):
            new[: self._used] = old[places]
        self._middle = Middle(*middle)

    def middle(self) -> Middle:
        """Of all places, as of a minute ago at most."""
        if self._turn - self._renewed >= RENEW_LOOKS:
            self._renewed = self._turn
            ring = self._ring[:, : self._used]
            looks = np.count_nonzero(~np.isnan(ring), axis=0)
            median = _median(ring, looks)
            scatter = NORMAL * _median(np.abs(ring - median), looks)
            for part, found in zip(self._middle, (looks, median, scatter), strict=True):
                part[: self._used] = found
        return Middle(*[part[: self._used] for part in self._middle])

    def remember(self, values: NDArray[np.float64], frozen: Sequence[int] = ()) -> None:
        """One look: a value for each place, NaN where there is none. Those that are frozen keep what they know."""
        row = self._turn % LOOKS
        values = np.concatenate([values, np.full(self._ring.shape[1] - len(values), np.nan)])
        values[list(frozen)] = self._ring[row, list(frozen)]
        self._ring[row] = values
        self._turn += 1


def _median(ring: NDArray[np.float64], looks: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each column, without NaN: numpy's nanmedian goes through the columns one by one."""
    if not ring.size:
        return np.empty(0)
    ordered = np.sort(ring, axis=0)  # NaN last
    low, high = np.maximum(looks - 1, 0) // 2, looks // 2
    column = np.arange(ring.shape[1])
    middle: NDArray[np.float64] = (ordered[low, column] + ordered[np.minimum(high, len(ring) - 1), column]) / 2
    odd = looks % 2 == 1
    middle[odd] = ordered[low[odd], column[odd]]
    return middle


class Shapes:
    """The usual quantiles of signals of cohorts, learnt slowly.

    Compared are shares, not values: how many of the values of now lie above the usual median, and how many within the
    usual quartiles. Of speeds, which gather around limits, the median itself leaps from one limit to the next when a
    few vehicles change theirs; the share above it does not.
    """

    def __init__(self, levels: int) -> None:
        self._places: dict[Hashable, int] = {}
        self._shapes = np.zeros((64, levels))
        self._looks = np.zeros(64, np.int64)
        self._asked: set[Hashable] = set()

    def forget(self) -> None:
        """Those that were not asked for since the last time; call it seldom."""
        kept = [key for key in self._places if key in self._asked]
        places = np.array([self._places[key] for key in kept], np.int64)
        room = max(64, len(kept)) - len(kept)
        self._shapes = np.concatenate([self._shapes[places], np.zeros((room, self._shapes.shape[1]))])
        self._looks = np.concatenate([self._looks[places], np.zeros(room, np.int64)])
        self._places = {key: place for place, key in enumerate(kept)}
        self._asked.clear()

    def usual(self, keys: Sequence[Hashable], others: Sequence[Hashable], shapes: Array) -> Array:
        """The usual shape of each key; of a young one that of the other, and as a last resort its own of now."""
        found = shapes.copy()
        self._asked.update(keys, others)
        for row, (key, other) in enumerate(zip(keys, others, strict=True)):
            for known in (key, other):
                place = self._places.get(known, -1)
                if place >= 0 and self._looks[place] >= MEMORY_LOOKS:
                    found[row] = self._shapes[place]
                    break
        return found

    def learn(self, keys: Sequence[Hashable], shapes: Array) -> None:
        places = np.array([self._places.setdefault(key, len(self._places)) for key in keys], np.int64)
        while len(self._places) > len(self._shapes):
            self._shapes = np.concatenate([self._shapes, np.zeros_like(self._shapes)])
            self._looks = np.concatenate([self._looks, np.zeros_like(self._looks)])
        self._looks[places] += 1
        share = 1 / np.minimum(self._looks[places], MEMORY_LOOKS)[:, None]
        self._shapes[places] += share * (shapes - self._shapes[places])


def above_median(usual: Array, now: Array) -> Array:
    """The share of what is now above the usual median; what is as good as equal to it counts half. Rows are shapes."""
    away = now - usual[:, usual.shape[1] // 2, None]
    share: Array = (0.5 + 0.5 * np.sign(np.where(np.abs(away) <= _nothing(usual), 0.0, away))).mean(axis=1)
    return share


def within_quartiles(usual: Array, now: Array) -> Array:
    """The share of what is now between the usual quartiles, or on them."""
    quarter = usual.shape[1] // 4
    low, high = usual[:, quarter, None] - _nothing(usual), usual[:, -quarter - 1, None] + _nothing(usual)
    share: Array = ((now >= low) & (now <= high)).mean(axis=1)
    return share


def _nothing(usual: Array) -> Array:
    """A difference that is none, of each shape: many values stand at one point (at rest, at a limit), and what was
    learnt of them lies a hair beside it."""
    width: Array = np.maximum(0.01 * (usual[:, -1] - usual[:, 0]), 1e-6 * np.abs(usual[:, usual.shape[1] // 2]))
    return width[:, None]
