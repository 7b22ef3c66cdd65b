"""What opens and closes: a change that is large, that stays, and that the hours of earlier days do not explain.

Decides by the table of kinds.py: a value counts as changed that is further from its median than the kind's least effect
and than six scatters; twice in a row it is an alert, half of that is calm, and six calm looks close it. A silence ends
when its vehicles are heard of again, or may be parked. Of related cohorts the one that explains a change best opens,
and the others are silent while it is open. Pure: one look's measures in, openings and closings out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetgate.load.watch.cohorts import Cohort, explaining
from fleetgate.load.watch.kinds import BOTH, IN_A_CELL, KINDS, SILENT_LABEL, Z
from fleetgate.load.watch.measures import Measure
from fleetgate.load.watch.usual import LEAST_LOOKS, Middle, Usual

PERSISTS = 2
"""Looks in a row: one may be a stall of the gate itself. With three a sudden change is not told within a minute."""

CALM = 0.5
CALM_LOOKS = 6
GONE_LOOKS = 30
"""An alert of a cohort that is no longer measured closes after so many looks."""

NEW_NORMAL_MS = 6 * 3600 * 1000
"""What lasts so long is how it is now: the alert closes, and its series begins anew."""

PARKED_MS = 3600 * 1000
"""Who is silent for so long counts as parked, while others of the tenant drive on."""

DRIVE_ON = 0.1
"""Others drive on when there are at least so many to each that fell silent: where nearly all are silent, none parks."""

FOR_GOOD_MS = 7 * 24 * 3600 * 1000
"""So long a silence is one alert: `pulses` is kept no longer."""

YOUNG = 2.0
"""A cohort that has no past of its own (a new software version) is compared with all of its tenant, and must differ
twice as much."""

MOST_SERIES = 100_000
"""180 MB. Beyond it no new series is watched; the first configurations and signals are."""

_NEARLY_ALL = YOUNG * KINDS["signal_presence"].effect

KnownIn = Callable[[Cohort, int], int]
"""How many vehicles of a cohort were known at a time (Unix ms), and have not been heard of since."""


Named = tuple[str, str, str, str]
"""A series as it stands in a table: tenant, kind, the cohort's words, signal."""


class Series(NamedTuple):
    kind: str
    cohort: Cohort
    signal: str

    @property
    def named(self) -> Named:
        return self.cohort.tenant, self.kind, self.cohort.words(), self.signal

    @property
    def key(self) -> str:
        """Of its alert."""
        return " | ".join(("watch", *self.named))


class Opening(NamedTuple):
    """Times are Unix ms of the looks; `before` and `after` are told as they are measured, rates as events a second."""

    series: Series
    before: float
    after: float
    scatter: float
    vehicles: int
    since_ms: int


class Closing(NamedTuple):
    series: Series


class _Run(NamedTuple):
    """Looks in a row with a change in one direction."""

    sign: float
    looks: int
    since_ms: int


class _Open:
    def __init__(self, since_ms: int, opened_ms: int, vehicles: int) -> None:
        self.since_ms = since_ms
        self.opened_ms = opened_ms
        self.vehicles = vehicles
        self.driving_ms = since_ms  # others of the tenant drive on since then
        self.calm = 0
        self.absent = 0


class Changes:
    """Fed with one look after another."""

    def __init__(self) -> None:
        self._usual = Usual()
        self._places: dict[Series, int] = {}
        self._looks: dict[Cohort, int] = {}
        self._runs: dict[Series, _Run] = {}
        self._open: dict[Series, _Open] = {}
        self._days: Mapping[Named, tuple[float, float]] = {}
        self._seen: Set[tuple[str, str]] = frozenset()

    def resume(self, series: Series, since_ms: int, opened_ms: int, vehicles: int) -> None:
        """An alert that is open from before a restart."""
        self._open[series] = _Open(since_ms, opened_ms, vehicles)

    def silent_since(self, now_ms: int) -> int:
        """When the oldest silence began that is told and lasts; now, where there is none."""
        return min([now_ms, *(alert.since_ms for one, alert in self._open.items() if one.kind == "silent")])

    def earlier_days(self, days: Mapping[Named, tuple[float, float]], seen: Set[tuple[str, str]]) -> None:
        """Between which values each series was at this hour of earlier days: there nothing is a change. `seen` are
        tenants and words of the cohorts that there were at any hour."""
        self._days, self._seen = days, seen

    def unsettled(self, now_ms: int) -> set[tuple[Cohort, str]]:
        """Cohorts and signals of which nothing should be learnt now: they changed, or seem to."""
        return {(one.cohort, one.signal) for one in self._unsettled(now_ms)}

    def _unsettled(self, now_ms: int) -> set[Series]:
        """After a restart the looks before an alert are looked at again, and learnt from."""
        return {*self._runs, *(one for one, alert in self._open.items() if alert.since_ms <= now_ms)}

    def summary(self) -> Iterator[tuple[Series, float, float, int]]:
        """Of each series that is known: its median, scatter and looks."""
        middle = self._usual.middle()
        for series, place in self._places.items():
            if middle.looks[place] >= LEAST_LOOKS:
                yield series, float(middle.median[place]), float(middle.scatter[place]), int(middle.looks[place])

    def forget(self) -> None:
        """Series of which nothing is remembered any more: new ones take their places. Who makes up cohorts fills the
        watch for an hour, and not for good. Call it seldom."""
        known = self._usual.known()
        kept = [(series, place) for series, place in self._places.items() if known[place] or series in self._open]
        self._usual.keep(np.array([place for _, place in kept], np.int64))
        self._places = {series: place for place, (series, _) in enumerate(kept)}
        cohorts = {series.cohort for series in self._places}
        self._looks = {cohort: looks for cohort, looks in self._looks.items() if cohort in cohorts}

    def look(
        self, measures: list[Measure], now_ms: int, known_in: KnownIn, *, mute: bool = False
    ) -> list[Opening | Closing]:
        """What opens and closes by one look; nothing opens while `mute`, when the past is looked at again."""
        measures = [*measures, *self._zeros(measures)]
        series = [Series(one.kind, one.cohort, one.signal) for one in measures]
        places = np.array([self._place(one) for one in series], np.int64)
        judged = self._judge(series, places, measures)
        firm = self._firm(series, judged, now_ms)
        told: list[Opening | Closing] = [*self._closings(series, judged, now_ms, known_in)]
        closed = {one.series for one in told}
        if not mute:
            told += self._openings(series, judged, measures, [i for i in firm if series[i] not in closed], now_ms)
        values = np.full(int(places.max(initial=-1)) + 1, np.nan)
        values[places[places >= 0]] = judged.value[places >= 0]
        self._usual.remember(values, [self._places[one] for one in self._unsettled(now_ms) if one in self._places])
        for cohort in {one.cohort for one in series}:
            self._looks[cohort] = self._looks.get(cohort, 0) + 1
        return told

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
            if len(self._places) >= MOST_SERIES:
                return -1
            zeros = self._looks.get(series.cohort, 0) if KINDS[series.kind].absent_is_zero else 0
            place = self._places[series] = self._usual.place(zeros)
        return place

    def _judge(self, series: list[Series], places: NDArray[np.int64], measures: list[Measure]) -> _Judged:
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
        return _Judged(value, median, scatter, np.sign(away), strength, about, enough)

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

    def _firm(self, series: list[Series], judged: _Judged, now_ms: int) -> list[int]:
        """The measures that changed for long enough."""
        runs: dict[Series, _Run] = {}
        firm = []
        for i in np.flatnonzero(judged.strength >= 1).tolist():
            before = self._runs.get(series[i])
            again = before is not None and before.sign == judged.sign[i]
            runs[series[i]] = run = (
                before._replace(looks=before.looks + 1) if again and before else _Run(judged.sign[i], 1, now_ms)
            )
            if run.looks >= PERSISTS and judged.enough[i]:
                firm.append(i)
        self._runs = runs
        return firm

    def _openings(
        self, series: list[Series], judged: _Judged, measures: list[Measure], firm: list[int], now_ms: int
    ) -> Iterator[Opening]:
        for kind, signal in sorted({(series[i].kind, series[i].signal) for i in firm}):
            same = {one.cohort: i for i, one in enumerate(series) if (one.kind, one.signal) == (kind, signal)}
            changed = [series[i].cohort for i in firm if (series[i].kind, series[i].signal) == (kind, signal)]
            signs = {judged.sign[same[cohort]] for cohort in changed}
            leaning = {c for c, i in same.items() if judged.strength[i] >= CALM and judged.sign[i] in signs}
            vehicles = {cohort: measures[i].size for cohort, i in same.items()}
            best = _one_of_neighbours(explaining(changed, vehicles, leaning.__contains__), vehicles)
            # Where a part of it is told already, those of its parts that are not.
            parts = [cohort for cohort in changed if cohort.parent in best]
            for cohort in [*best, *parts]:
                one = Series(kind, cohort, signal)
                if any(self._covers(other, one) for other in self._open):
                    continue
                i = same[cohort]
                since_ms, about = self._runs[one].since_ms, int(judged.about[i])
                self._open[one] = _Open(since_ms, now_ms, about)
                told = measures[i].told or (_told(kind, float(judged.median[i])), _told(kind, float(judged.value[i])))
                yield Opening(one, *told, float(judged.scatter[i]), about, since_ms)

    @staticmethod
    def _covers(other: Series, one: Series) -> bool:
        return (other.kind, other.signal) == (one.kind, one.signal) and other.cohort.related(one.cohort)

    def _closings(self, series: list[Series], judged: _Judged, now_ms: int, known_in: KnownIn) -> Iterator[Closing]:
        at = {one: i for i, one in enumerate(series)}
        for one, alert in list(self._open.items()):
            if alert.opened_ms > now_ms:
                continue  # the past is looked at again
            if one.kind == "silent":
                calm = _silence_is_over(one.cohort, alert, now_ms, known_in)
            elif one in at:
                i, alert.absent = at[one], 0
                calm = bool(np.isfinite(judged.median[i]) and judged.strength[i] < CALM)
            else:
                alert.absent += 1
                calm = alert.absent >= GONE_LOOKS
            alert.calm = alert.calm + 1 if calm else 0
            lasts = now_ms - alert.opened_ms >= (FOR_GOOD_MS if one.kind == "silent" else NEW_NORMAL_MS)
            if alert.calm >= CALM_LOOKS or alert.absent >= GONE_LOOKS or lasts:
                del self._open[one]
                if lasts and one in self._places:
                    self._usual.forget(self._places[one])
                yield Closing(one)


class _Judged(NamedTuple):
    """Arrays beside the measures: `strength` 1 is a change, `about` how many vehicles it is about, and `enough` whether
    those are enough."""

    value: NDArray[np.float64]
    median: NDArray[np.float64]
    scatter: NDArray[np.float64]
    sign: NDArray[np.float64]
    strength: NDArray[np.float64]
    about: NDArray[np.float64]
    enough: NDArray[np.bool_]


def _silence_is_over(cohort: Cohort, alert: _Open, now_ms: int, known_in: KnownIn) -> bool:
    if known_in(Cohort(cohort.tenant), now_ms) < DRIVE_ON * alert.vehicles:
        alert.driving_ms = now_ms
    back = known_in(cohort, alert.since_ms) <= CALM * alert.vehicles
    return back or now_ms - alert.driving_ms >= PARKED_MS


def _told(kind: str, value: float) -> float:
    return math.exp(min(value, 700.0)) if KINDS[kind].logarithm else value


def _one_of_neighbours(cohorts: list[Cohort], vehicles: Mapping[Cohort, int]) -> list[Cohort]:
    """Of cells that touch, the one with the most vehicles speaks for all."""
    kept: list[Cohort] = []
    for cohort in sorted(cohorts, key=lambda cohort: -vehicles[cohort]):
        if cohort.cell is None or not any(cohort.related(other) for other in kept):
            kept.append(cohort)
    return kept
