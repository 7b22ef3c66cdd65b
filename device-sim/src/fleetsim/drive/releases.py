"""Decides which software each vehicle runs: a release every four weeks, and who gets it when.

A release goes to one vehicle in a hundred first, to a tenth after three days, to a half after a week, and to all others
in the two weeks after. A vehicle takes it when it is parked; a few hold out until the release after.
"""

from datetime import UTC, datetime

import numpy as np

from fleetsim.drive.kinds import Array, Index
from fleetsim.drive.regions import DAY_MS, WEEK_MS

EVERY_MS = 4 * WEEK_MS
# The share of the fleet that has been offered a release so many days after it.
ROLLOUT_DAYS = (0.0, 0.5, 3.0, 3.5, 7.0, 8.0, 14.0, 21.0)
ROLLOUT_SHARE = (0.0, 0.01, 0.01, 0.10, 0.10, 0.50, 0.50, 1.0)
HOLD_OUT = 0.03
# A Monday noon, from which releases are counted.
_FIRST_MS = 4 * DAY_MS + DAY_MS / 2


class Releases:
    """`release` counts releases; a name tells year and week of its day, as calendar versions do."""

    def __init__(self, n: int, at_ms: float, seed: int) -> None:
        self._n, self._seed = n, seed
        self._offers: dict[int, Array] = {}
        everybody = np.arange(n)
        self.release = np.zeros(n, dtype=np.int64)
        self.install(everybody, at_ms)

    def install(self, which: Index, at_ms: float) -> None:
        """They are parked: they take what they have been offered."""
        newest = int((at_ms - _FIRST_MS) // EVERY_MS)
        found = np.full(len(which), newest - 2)
        for release in (newest - 1, newest):
            if release not in self._offers:
                self._offers[release] = self._offered_ms(release)
            found = np.where(self._offers[release][which] <= at_ms, release, found)
        self.release[which] = np.maximum(self.release[which], found)

    def _offered_ms(self, release: int) -> Array:
        """When each vehicle is offered a release: another order each time."""
        rng = np.random.default_rng([self._seed, release])
        days = np.interp(rng.random(self._n), ROLLOUT_SHARE, ROLLOUT_DAYS)
        days = np.where(rng.random(self._n) < HOLD_OUT, EVERY_MS / DAY_MS * 2, days)
        return _FIRST_MS + release * EVERY_MS + days * DAY_MS


def name(release: int) -> str:
    """Such as 2026.44.1."""
    year, week, _ = datetime.fromtimestamp((_FIRST_MS + release * EVERY_MS) / 1000, UTC).isocalendar()
    return f"{year}.{week:02d}.1"
