"""How far each measure is from what is usual for it: the median of its looks before, or that of its tenant.

Decides what a measure is compared with, how much it scatters by chance, and how many vehicles a change is about. What
of it is an alert is decided by changes.py. Pure: one look's measures in, arrays beside them out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetgate.load.watch.cohorts import Cohort
from fleetgate.load.watch.kinds import BOTH, IN_A_CELL, KINDS, SILENT_LABEL, Named, Series, Z
from fleetgate.load.watch.measures import Measure
from fleetgate.load.watch.usual import LEAST_LOOKS, Middle, Usual

CALM = 0.5
"""Of a change: less than that is none."""

YOUNG = 2.0
"""A cohort that has no past of its own (a new software version) is compared with all of its tenant, and must differ
twice as much."""

MOST_SERIES = 100_000
"""180 MB. A tenant may have as many of them as are free still, so that nobody fills the watch for others; what comes
beyond is not watched, the first configurations and signals are."""

_NEARLY_ALL = YOUNG * KINDS["signal_presence"].effect


class Judged(NamedTuple):
    """Beside one another: the measures, also of what is no more, and what is to be said of each. `place` is that of its
    memory, or -1, `strength` 1 is a change, `about` how many vehicles it is about, and `enough` whether those are
    enough."""

    series: list[Series]
    measures: list[Measure]
    place: NDArray[np.int64]
    value: NDArray[np.float64]
    median: NDArray[np.float64]
    scatter: NDArray[np.float64]
    sign: NDArray[np.float64]
    strength: NDArray[np.float64]
    about: NDArray[np.float64]
    enough: NDArray[np.bool_]


class Judge:
    """Remembers each series. Fed with one look after another."""

    def __init__(self) -> None:
        self._usual = Usual()
        self._places: dict[Series, int] = {}
        self._of: Counter[str] = Counter()  # tenants
        self._looks: dict[Cohort, int] = {}
        self._days: Mapping[Named, tuple[float, float]] = {}
        self._seen: Set[tuple[str, str]] = frozenset()

    def earlier_days(self, days: Mapping[Named, tuple[float, float]], seen: Set[tuple[str, str]]) -> None:
        """Between which values each series was at this hour of earlier days: there nothing is a change. `seen` are
        tenants and words of the cohorts that there were at any hour."""
        self._days, self._seen = days, seen

    def summary(self) -> Iterator[tuple[Series, float, float, int]]:
        """Of each series that is known: its median, scatter and looks."""
        middle = self._usual.middle()
        for series, place in self._places.items():
            if middle.looks[place] >= LEAST_LOOKS:
                yield series, float(middle.median[place]), float(middle.scatter[place]), int(middle.looks[place])

    def forget(self, but: Collection[Series]) -> None:
        """Series of which nothing is remembered any more, but for some: new ones take their places. Who makes up
        cohorts fills the watch of his tenant for an hour, and not for good. Call it seldom."""
        known = self._usual.known()
        kept = [(series, place) for series, place in self._places.items() if known[place] or series in but]
        self._usual.keep(np.array([place for _, place in kept], np.int64))
        self._places = {series: place for place, (series, _) in enumerate(kept)}
        self._of = Counter(series.cohort.tenant for series in self._places)
        cohorts = {series.cohort for series in self._places}
        self._looks = {cohort: looks for cohort, looks in self._looks.items() if cohort in cohorts}

    def judge(self, measures: list[Measure]) -> Judged:
        """One look."""
        measures = [*measures, *self._zeros(measures)]
        series = [Series(one.kind, one.cohort, one.signal) for one in measures]
        return self._judge(series, measures, np.array([self._place(one) for one in series], np.int64))

    def learn(self, judged: Judged, but: Collection[Series]) -> None:
        """The values of this look, but for some series."""
        placed = judged.place >= 0
        values = np.full(int(judged.place.max(initial=-1)) + 1, np.nan)
        values[judged.place[placed]] = judged.value[placed]
        self._usual.remember(values, [self._places[one] for one in but if one in self._places])
        for cohort in {one.cohort for one in judged.series}:
            self._looks[cohort] = self._looks.get(cohort, 0) + 1

    def begin_anew(self, series: Series) -> None:
        """What was usual is so no more."""
        if series in self._places:
            self._usual.forget(self._places[series])

    def _zeros(self, measures: list[Measure]) -> Iterator[Measure]:
        """Of what happened before and did not in this look, where its cohort was measured. That none has a signal any
        more counts: there must be vehicles enough that could have it, which is when those that have any are told."""
        there = {(one.kind, one.cohort, one.signal) for one in measures}
        any_signal = {one.cohort: one for one in measures if one.kind == "signal_presence" and not one.signal}
        measured = {one.cohort: one for one in measures}
        for series in [*self._places, *self._not_in_young(any_signal)]:
            others = any_signal if series.kind == "signal_presence" else measured
            if KINDS[series.kind].absent_is_zero and series.cohort in others and series not in there:
                like = others[series.cohort]
                yield Measure(*series, 0.0, like.size, 0, like.noise)

    def _not_in_young(self, cohorts: Collection[Cohort]) -> Iterator[Series]:
        """Signals that a cohort which is new never had, and so many of its tenant have that it is a change. One that
        comes back in the morning is not new: it may be the cars that have no fuel."""
        young = [
            one
            for one in cohorts
            if one.tenant and self._looks.get(one, 0) < LEAST_LOOKS and (one.tenant, one.words()) not in self._seen
        ]
        if not young:
            return
        median = self._usual.middle().median
        for series, place in list(self._places.items()):
            tenant = series.cohort
            if series.kind == "signal_presence" and tenant.parent is None and median[place] >= _NEARLY_ALL:
                for cohort in young:
                    if cohort.tenant == tenant.tenant and (one := series._replace(cohort=cohort)) not in self._places:
                        yield one

    def _place(self, series: Series) -> int:
        place = self._places.get(series)
        if place is None:
            if self._of[series.cohort.tenant] >= MOST_SERIES - len(self._places):
                return -1
            self._of[series.cohort.tenant] += 1
            zeros = self._looks.get(series.cohort, 0) if KINDS[series.kind].absent_is_zero else 0
            place = self._places[series] = self._usual.place(zeros)
        return place

    def _judge(self, series: list[Series], measures: list[Measure], places: NDArray[np.int64]) -> Judged:
        middle = self._usual.middle()
        value = np.array([one.value for one in measures])
        noise = np.array([one.noise for one in measures])
        about = np.array([one.about for one in measures])
        kinds = [KINDS[one.kind] for one in measures]
        least, floor = np.array([kind.effect for kind in kinds]), np.array([kind.floor for kind in kinds])
        least[[one.cohort.cell is not None for one in measures]] = IN_A_CELL
        least[[one.kind == "silent" and one.cohort.software is not None for one in measures]] = SILENT_LABEL
        known = (places >= 0) & (middle.looks[places] >= LEAST_LOOKS) if len(places) else np.zeros(0, np.bool_)
        median = np.where(known, middle.median[places], np.nan) if len(places) else value
        scatter = np.where(known, middle.scatter[places], np.nan) if len(places) else value
        for i in np.flatnonzero(~known).tolist():
            median[i], scatter[i] = self._of_tenant(series[i], middle)
            least[i] *= YOUNG
        scale = np.maximum(np.maximum(scatter, floor), noise)
        away = value - median
        ways = np.array([kind.way for kind in kinds])
        away = np.where((ways == BOTH) | (np.sign(away) == ways), away, 0.0)
        strength = np.nan_to_num(np.abs(away) / np.maximum(least, Z * scale))
        for i in np.flatnonzero(strength >= CALM).tolist() if self._days else ():
            low, high = self._days.get(series[i].named, (math.inf, -math.inf))
            if low - Z * noise[i] <= value[i] <= high + Z * noise[i]:
                strength[i] = 0.0
        gone = np.array([kind.absent_is_zero for kind in kinds], np.bool_) & (value < median)
        size = np.array([one.size for one in measures])
        about = np.where(gone, np.rint((median - value) * size), about)  # those that have it no more
        enough = about >= np.array([kind.least for kind in kinds])
        return Judged(series, measures, places, value, median, scatter, np.sign(away), strength, about, enough)

    def _of_tenant(self, series: Series, middle: Middle) -> tuple[float, float]:
        """Of a young cohort: median and scatter of the same measure of all of the tenant; NaN where that is unknown."""
        tenant = Cohort(series.cohort.tenant)
        if series.cohort == tenant or self._looks.get(series.cohort, 0) >= LEAST_LOOKS:
            return math.nan, math.nan
        place = self._places.get(series._replace(cohort=tenant), -1)
        if place >= 0 and middle.looks[place] >= LEAST_LOOKS and series.kind != "event_rate":
            return float(middle.median[place]), float(middle.scatter[place])
        if place < 0 and KINDS[series.kind].absent_is_zero and self._looks.get(tenant, 0) >= LEAST_LOOKS:
            return 0.0, 0.0  # the tenant has none of it, nor ever had
        return math.nan, math.nan
