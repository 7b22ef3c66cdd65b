"""What opens and closes: a change that is large, that stays, and that the hours of earlier days do not explain.

Decides by the table of kinds.py: a value counts as changed that is further from its median than the kind's least effect
and than six scatters; twice in a row it is an alert, half of that is calm, and six calm looks close it. A silence ends
when its vehicles are heard of again, or may be parked. Of related cohorts the one that explains a change best opens,
and the others are silent while it is open. Pure: one look's measures in, openings and closings out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from fleetgate.load.watch.cohorts import Cohort, explaining
from fleetgate.load.watch.judging import CALM, Judge, Judged
from fleetgate.load.watch.kinds import KINDS, Series
from fleetgate.load.watch.measures import Measure

PERSISTS = 2
"""Looks in a row: one may be a stall of the gate itself. With three a sudden change is not told within a minute."""

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

KnownIn = Callable[[Cohort, int], int]
"""How many vehicles of a cohort were known at a time (Unix ms), and have not been heard of since."""


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
    """Fed with one look after another; a judge serves one of them."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._runs: dict[Series, _Run] = {}
        self._open: dict[Series, _Open] = {}

    def resume(self, series: Series, since_ms: int, opened_ms: int, vehicles: int) -> None:
        """An alert that is open from before a restart."""
        self._open[series] = _Open(since_ms, opened_ms, vehicles)

    def silent_since(self, now_ms: int) -> int:
        """When the oldest silence began that is told and lasts; now, where there is none."""
        return min([now_ms, *(alert.since_ms for one, alert in self._open.items() if one.kind == "silent")])

    def unsettled(self, now_ms: int) -> set[tuple[Cohort, str]]:
        """Cohorts and signals of which nothing should be learnt now: they changed, or seem to."""
        return {(one.cohort, one.signal) for one in self._unsettled(now_ms)}

    def _unsettled(self, now_ms: int) -> set[Series]:
        """After a restart the looks before an alert are looked at again, and learnt from."""
        return {*self._runs, *(one for one, alert in self._open.items() if alert.since_ms <= now_ms)}

    def forget(self) -> None:
        """Series of which nothing is remembered any more, and that are not open. Call it seldom."""
        self._judge.forget(self._open)

    def look(
        self, measures: list[Measure], now_ms: int, known_in: KnownIn, *, mute: bool = False
    ) -> list[Opening | Closing]:
        """What opens and closes by one look; nothing opens while `mute`, when the past is looked at again."""
        judged = self._judge.judge(measures)
        firm = self._firm(judged, now_ms)
        told: list[Opening | Closing] = [*self._closings(judged, now_ms, known_in)]
        closed = {one.series for one in told}
        if not mute:
            told += self._openings(judged, [i for i in firm if judged.series[i] not in closed], now_ms)
        self._judge.learn(judged, self._unsettled(now_ms))
        return told

    def _firm(self, judged: Judged, now_ms: int) -> list[int]:
        """The measures that changed for long enough."""
        series = judged.series
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

    def _openings(self, judged: Judged, firm: list[int], now_ms: int) -> Iterator[Opening]:
        series, measures = judged.series, judged.measures
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

    def _closings(self, judged: Judged, now_ms: int, known_in: KnownIn) -> Iterator[Closing]:
        at = {one: i for i, one in enumerate(judged.series)}
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
                if lasts:
                    self._judge.begin_anew(one)
                yield Closing(one)


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
