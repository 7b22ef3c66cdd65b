"""Decides when a vehicle leaves its home, how often it stops on its tour, how far away, and how long it stays there.

A tour goes from home to one place or several and home again. Week after week the same habits, on local time; how
the vehicle gets there is `driver`'s.
"""

from typing import NamedTuple

import numpy as np

from fleetsim.drive.kinds import CAR, KINDS, TRUCK, VAN, Array, Index
from fleetsim.drive.regions import DAY_MS, HOUR_MS, WEEK_MS

MINUTE_MS = 60_000.0
# Departures are more regular than chance: the waiting time is a sum of four exponential ones.
_REGULAR = 4.0
_COMMUTE_MS, _COMMUTE_SPREAD_MS = 8.3 * HOUR_MS, 0.9 * HOUR_MS


class Habit(NamedTuple):
    """Tours in a week; weights of the hours at which they begin, on weekdays and at weekends; how much of a weekday a
    day of the weekend is; places in a tour; straight kilometres to a place and minutes there (median, sigma of its
    log); the share of morning tours on weekdays that go to work."""

    tours: float
    weekday: tuple[float, ...]
    weekend: tuple[float, ...]
    weekend_share: float
    places: tuple[int, int]
    far: tuple[float, float]
    stay: tuple[float, float]
    commutes: float


# fmt: off
_CAR_WEEKDAY = (.2, .1, .1, .2, .8, 3.5, 10, 14, 9, 4, 2.5, 2.2, 2, 2, 2.2, 2.5, 3, 3.5, 3.5, 2.6, 1.8, 1.2, .8, .4)
_CAR_WEEKEND = (.6, .4, .3, .2, .3, .6, 1.2, 2, 4, 6, 7, 6.5, 5, 5.5, 5.5, 5, 4.5, 4.5, 4, 3, 2, 1.5, 1.2, .8)
_WORK_DAY = (.05, .05, .05, .2, .8, 3, 8, 10, 5, 2, 1, 1, 1, 1, .6, .4, .2, .1, .1, .1, .05, .05, .05, .05)
_HAUL_DAY = (.4, .4, .8, 2, 5, 8, 7, 4, 3, 2, 2, 2, 2, 2, 1.5, 1, 1, 1, 1, 1, .8, .6, .5, .4)
# fmt: on
HABITS: dict[str, Habit] = {
    CAR.name: Habit(7.4, _CAR_WEEKDAY, _CAR_WEEKEND, 0.85, (1, 3), (4.4, 1.38), (42, 0.9), 0.65),
    VAN.name: Habit(5.6, _WORK_DAY, _WORK_DAY, 0.25, (6, 24), (2.6, 0.8), (7, 0.7), 0.0),
    TRUCK.name: Habit(5.4, _HAUL_DAY, _HAUL_DAY, 0.15, (2, 4), (38, 0.7), (45, 0.5), 0.0),
}
_BY_KIND = tuple(HABITS[kind.name] for kind in KINDS)
_HOURS = np.arange(7 * 24 + 1) * HOUR_MS


def _cumulative(habit: Habit) -> Array:
    """Tours begun since Monday, for each hour of the week."""
    weekday, weekend = (np.array(hours) / sum(hours) for hours in (habit.weekday, habit.weekend))
    week = np.concatenate([*[weekday] * 5, *[weekend * habit.weekend_share] * 2])
    return np.concatenate([[0.0], np.cumsum(week * habit.tours / week.sum())])


_TOURS = [_cumulative(habit) for habit in _BY_KIND]


class Diary:
    """The habits of every vehicle; `kind` is its place in KINDS."""

    def __init__(self, kind: Index, rng: np.random.Generator) -> None:
        self._kind, self._rng = kind, rng
        # Some leave home twice as often as others.
        self._keen = rng.gamma(5.0, 1 / 5.0, len(kind)) + 0.15

    def leave_ms(self, which: Index, week_ms: Array) -> Array:
        """How long after local time `week_ms` these vehicles leave home."""
        waits = self._rng.gamma(_REGULAR, 1 / _REGULAR, len(which)) / self._keen[which]
        after = np.empty(len(which))
        for place, tours in enumerate(_TOURS):
            mine = self._kind[which] == place
            weeks, within = np.divmod(week_ms[mine], WEEK_MS)
            due = np.interp(within, _HOURS, tours) + waits[mine]
            more, left = np.divmod(due, tours[-1])
            after[mine] = (weeks + more) * WEEK_MS + np.interp(left, tours, _HOURS) - week_ms[mine]
        return after

    def places(self, which: Index) -> Array:
        """How many places the tour goes to."""
        low, high = self._pairs("places", which)
        return self._rng.integers(low.astype(np.intp), high.astype(np.intp), endpoint=True).astype(np.float64)

    def far_m(self, which: Index) -> Array:
        """How far away the next place is, as the crow flies."""
        # Nobody takes the car around the corner.
        least = self._rng.uniform(0.6, 1.7, len(which))
        return np.minimum(np.maximum(self._lognormal("far", which), least), 220) * 1_000

    def stay_ms(self, which: Index, week_ms: Array) -> Array:
        """How long they stay where they arrive at that local time."""
        stay = np.clip(self._lognormal("stay", which), 1.5, 600) * MINUTE_MS
        hour = week_ms % DAY_MS / HOUR_MS
        morning = (week_ms % WEEK_MS < 5 * DAY_MS) & (hour > 5) & (hour < 10)
        share = np.array([habit.commutes for habit in _BY_KIND])[self._kind[which]]
        works = morning & (self._rng.random(len(which)) < share)
        return np.where(works, self._rng.normal(_COMMUTE_MS, _COMMUTE_SPREAD_MS, len(which)), stay)

    def _lognormal(self, field: str, which: Index) -> Array:
        median, sigma = self._pairs(field, which)
        return median * np.exp(self._rng.normal(0, 1, len(which)) * sigma)

    def _pairs(self, field: str, which: Index) -> tuple[Array, Array]:
        table = np.array([getattr(habit, field) for habit in _BY_KIND], dtype=np.float64)[self._kind[which]]
        return table[:, 0], table[:, 1]
