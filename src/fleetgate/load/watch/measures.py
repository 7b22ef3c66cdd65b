"""One look in values: of each kind, cohort and signal how much, and about how many vehicles.

Decides how a measure is computed from what was heard and asked; whether its change counts is decided by changes.py. A
share is one of vehicles, messages, events or readings of the cohort in a window of half a minute, or longer where the
vehicles speak less often.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetgate.load.travel import LATITUDE, LONGITUDE
from fleetgate.load.watch.cohorts import Cohort
from fleetgate.load.watch.fleet import Fleet, Level
from fleetgate.load.watch.looks import LEAST_VEHICLES, Columns, SignalRows
from fleetgate.load.watch.usual import Shapes, above_median, within_quartiles

LOOK_MS = 10_000
WINDOW_MS, LONGEST_WINDOW_MS = 30_000, 120_000
OVERDUE, OVERDUE_MS = 1.5, 5_000
"""Of its own interval, and so much more."""

AHEAD_MS, BEHIND_MS = 5_000, 60_000
"""A clock is wrong beyond these: ahead is what the judge flags; behind, what no live message takes to travel."""

LEAST_IN_CELL = 5
POSITION = "Vehicle.CurrentLocation"
SHARE_NOISE = 0.14
"""Standard deviation of a share of one vehicle in fifty, times the root of their number."""

_PARTS = {"faults": "faults", "unknown_signals": "unknown", "implausible": "implausible", "gaps": "missing"}
"""What is counted of each vehicle for a share of all messages, events or readings. Such a share is about those that
have any of it: one vehicle that lost a hundred messages is none of the fleet's troubles."""


class Measure(NamedTuple):
    """`size` vehicles the cohort has, `about` of them it is about; `noise` is how far chance and coming and going of
    vehicles alone may move the value. `told` is what a person is told instead of usual value and value."""

    kind: str
    cohort: Cohort
    signal: str
    value: float
    size: int
    about: int
    noise: float = 0.0
    told: tuple[float, float] | None = None


class Span(NamedTuple):
    """`now_ms`: everything that was received until then is loaded. What is heard now was heard in the last `window_ms`,
    of vehicles, signals and refusals alike; `age_ms` is how long the watch remembers."""

    now_ms: int
    window_ms: int
    age_ms: int


def window_ms(fleet: Fleet) -> int:
    """In steps of a look: long enough that most vehicles have spoken."""
    intervals = fleet.column("interval_ms")
    known = intervals[~np.isnan(intervals)]
    typical = float(np.median(known)) if len(known) else 0.0
    wanted = min(max(1.5 * typical, WINDOW_MS), LONGEST_WINDOW_MS)
    return math.ceil(wanted / LOOK_MS) * LOOK_MS


def measures(
    fleet: Fleet,
    signals: SignalRows,
    refusals: Columns,
    paths: Mapping[int, str],
    shapes: Shapes,
    span: Span,
) -> list[Measure]:
    """All of one look."""
    levels = fleet.levels()
    look = _Look(fleet, span)
    found: list[Measure] = []
    for level in levels:
        found += look.of_level(level)
    found += look.silent(fleet.cells("cell"), LEAST_IN_CELL)
    found += look.jumped(fleet.cells("left_cell"), fleet.cells("cell"))
    found += look.refused(levels, refusals)
    found += look.signals(levels, signals, paths, shapes)
    return found


def signal_keys(rows: SignalRows) -> list[tuple[Cohort, int]]:
    """Whose values and of which signal each row has."""
    flags = ("all_tenants", "all_software", "all_config")
    names = (rows.columns[name] for name in ("tenant", "software", "config", "signal", *flags))
    return [
        (Cohort("" if all_t else tenant, None if all_s else software, None if all_c else config), int(signal))
        for tenant, software, config, signal, all_t, all_s, all_c in zip(*names, strict=True)
    ]


class _Look:
    def __init__(self, fleet: Fleet, span: Span) -> None:
        now_ms = span.now_ms
        self._fleet = fleet
        self._now_ms = now_ms
        self._heard = fleet.heard_after(now_ms - span.window_ms)
        last, interval = fleet.column("last_ms"), fleet.column("interval_ms")
        ago = now_ms - last
        self._present = ago <= self._heard.seconds * 1000
        self._known = fleet.known(now_ms)
        self._overdue = self._known & (ago > OVERDUE * np.nan_to_num(interval) + OVERDUE_MS)
        self._reporting = self._present & (fleet.column("held") == 0)
        readings = np.bincount(self._heard.vehicle, weights=self._heard.readings, minlength=len(last))
        self._with_any = self._reporting & (readings > 0)
        self._new = self._present & (fleet.column("since_ms") > now_ms - min(span.age_ms, 30 * 60_000) / 2)
        delay = fleet.column("delay_ms")
        self._concerned = {
            kind: np.bincount(self._heard.vehicle, weights=getattr(self._heard, part), minlength=len(last)) > 0
            for kind, part in _PARTS.items()
        }
        self._skewed = self._present & ((delay < -AHEAD_MS) | (delay > BEHIND_MS))

    def of_level(self, level: Level) -> Iterator[Measure]:
        """What was heard of each cohort that has vehicles enough."""
        if level.cohorts and level.cohorts[0].config is None:
            yield from self.silent(level, LEAST_VEHICLES)
        size, skewed = self._count(level, self._present), self._count(level, self._skewed)
        known = self._count(level, self._known)
        sums, squares = self._sums(level), self._squares(level)
        concerned = {kind: self._count(level, which) for kind, which in self._concerned.items()}
        for place in np.flatnonzero(np.maximum(size, known) >= LEAST_VEHICLES).tolist():
            cohort, vehicles = level.cohorts[place], int(size[place])
            messages, events, faults, unknown, readings, implausible, missing = (int(part[place]) for part in sums)
            if known[place]:
                yield self._event_rate(cohort, events, squares[place], int(known[place]), vehicles)
            if vehicles < LEAST_VEHICLES:
                continue
            for kind, part, whole in (
                ("faults", faults, events),
                ("unknown_signals", unknown, events),
                ("implausible", implausible, readings),
                ("gaps", missing, missing + messages),
            ):
                yield self._share(kind, cohort, "", part / max(whole, 1), vehicles, int(concerned[kind][place]))
            wrong = int(skewed[place])
            yield self._share("clock_skew", cohort, "", wrong / vehicles, vehicles, wrong)

    def _event_rate(self, cohort: Cohort, events: int, squares: float, known: int, present: int) -> Measure:
        """Of each vehicle: that more of them drive is no change. But each that comes or goes moves it, by its own part:
        where one vehicle sends the backlog of an hour, that is nearly all of it."""
        rate = math.log((events + 0.5) / self._heard.seconds / known)
        noise = math.sqrt(squares + 1) / (events + 1)
        return Measure("event_rate", cohort, "", rate, max(present, known), known, noise)

    def silent(self, level: Level, least: int) -> Iterator[Measure]:
        known, gone = self._count(level, self._known), self._count(level, self._overdue)
        for place in np.flatnonzero(known >= least).tolist():
            share = gone[place] / known[place]
            yield self._share("silent", level.cohorts[place], "", float(share), int(known[place]), int(gone[place]))

    def jumped(self, left: Level, now: Level) -> Iterator[Measure]:
        """By the cell that they left: there were their neighbours, who jumped too or did not."""
        lately = self._fleet.column("jumped_ms") > self._now_ms - 2 * WINDOW_MS
        gone = dict(zip(left.cohorts, self._count(left, lately).tolist(), strict=True))
        here = dict(zip(now.cohorts, self._count(now, self._known & ~lately).tolist(), strict=True))
        for cohort in {**gone, **here}:
            jumped = gone.get(cohort, 0)
            size = jumped + here.get(cohort, 0)
            if size >= LEAST_IN_CELL:
                yield self._share("position_jumps", cohort, POSITION, jumped / size, size, jumped)

    def refused(self, levels: list[Level], refusals: Columns) -> Iterator[Measure]:
        """Of the messages of a cohort, the share that was refused for each reason. A device that was never heard of
        otherwise runs nobody knows what: it counts for its tenant."""
        tenants = levels[0]
        by_tenant = {cohort.tenant: place for place, cohort in enumerate(tenants.cohorts)}
        refused: dict[tuple[int, int, str], list[int]] = {}
        for tenant, device_id, reason, count in zip(*(refusals[name] for name in _REFUSED), strict=True):
            vehicle = self._fleet.vehicle_of(tenant, device_id)
            places = [(0, by_tenant[tenant])] if tenant in by_tenant else []
            if vehicle is not None:
                places = [(depth, int(level.of[vehicle])) for depth, level in enumerate(levels)]
            for depth, place in places:
                told = refused.setdefault((depth, place, reason), [0, 0])
                told[0] += int(count)
                told[1] += 1
        reasons = {(levels[depth].cohorts[place].tenant, reason) for depth, place, reason in refused}
        for depth, level in enumerate(levels):
            messages, sizes = self._sums(level)[0], self._count(level, self._present | self._known)
            for place in np.flatnonzero(sizes >= LEAST_VEHICLES).tolist():
                cohort = level.cohorts[place]
                for reason in sorted(reason for tenant, reason in reasons if tenant == cohort.tenant):
                    # None in one software while there are some in another says which of them it is.
                    count, devices = refused.get((depth, place, reason), (0, 0))
                    share = count / max(count + int(messages[place]), 1)
                    yield self._share("refused", cohort, reason, share, int(sizes[place]), devices)

    def signals(
        self, levels: list[Level], rows: SignalRows, paths: Mapping[int, str], shapes: Shapes
    ) -> Iterator[Measure]:
        """How the values of each signal lie to its usual median and quartiles; how many vehicles have it, and how many
        have any; how many readings repeat the one before. Where the fleet is, is no quality of it: of positions only
        the presence."""
        reporting: dict[Cohort, int] = {}
        turned: dict[Cohort, float] = {}
        for level in [*levels, self._fleet.all_tenants()]:
            counts = [self._count(level, which).tolist() for which in (self._reporting, self._new, self._with_any)]
            for cohort, size, new, having in zip(level.cohorts, *counts, strict=True):
                reporting[cohort] = size = max(size, 1)
                turned[cohort] = min(1.0, new / size)
                if size >= LEAST_VEHICLES:
                    noise = _chance(size, turned[cohort])
                    yield Measure("signal_presence", cohort, "", having / size, size, having, noise)
        columns = rows.columns
        keys = signal_keys(rows)
        usual = shapes.usual(keys, [(Cohort(cohort.tenant), signal) for cohort, signal in keys], rows.shape)
        above, within = above_median(usual, rows.shape).tolist(), within_quartiles(usual, rows.shape).tolist()
        quarter = rows.shape.shape[1] // 4
        middle = rows.shape.shape[1] // 2
        medians = usual[:, middle], rows.shape[:, middle]
        widths = [shape[:, -quarter - 1] - shape[:, quarter] for shape in (usual, rows.shape)]
        told = medians, widths
        for row, (cohort, number) in enumerate(keys):
            signal = paths.get(number, str(number))
            vehicles, pulses, fresh = (int(columns[name][row]) for name in ("vehicles", "pulses", "fresh"))
            size, new = reporting.get(cohort, 1), turned.get(cohort, 0.0)
            share = min(1.0, fresh / size)
            yield Measure("signal_presence", cohort, signal, share, size, fresh, _chance(size, new))
            if number in (LATITUDE, LONGITUDE) or fresh < LEAST_VEHICLES:
                continue  # of few vehicles it is told that they have it: none is another thing than not enough
            noise = _chance(fresh, new)
            for kind, share, (was, now) in zip(("median", "spread"), (above[row], within[row]), told, strict=True):
                angle = math.asin(math.sqrt(share))
                yield Measure(kind, cohort, signal, angle, size, fresh, noise, (float(was[row]), float(now[row])))
            if pulses - vehicles >= LEAST_VEHICLES:
                moved = (int(columns["different"][row]) - vehicles) / (pulses - vehicles)
                yield Measure("stuck", cohort, signal, 1 - moved, size, vehicles, noise)

    def _share(self, kind: str, cohort: Cohort, signal: str, share: float, size: int, about: int) -> Measure:
        return Measure(kind, cohort, signal, share, size, about, SHARE_NOISE / math.sqrt(size))

    def _squares(self, level: Level) -> NDArray[Any]:
        """Of each cohort the sum of its vehicles' events, each squared."""
        events = np.bincount(self._heard.vehicle, weights=self._heard.events, minlength=len(level.of))
        placed = level.of >= 0
        return np.bincount(level.of[placed], weights=events[placed] ** 2, minlength=len(level.cohorts))

    def _count(self, level: Level, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        of = level.of[which]
        return np.bincount(of[of >= 0], minlength=len(level.cohorts))

    def _sums(self, level: Level) -> list[NDArray[Any]]:
        of = level.of[self._heard.vehicle]
        return [np.bincount(of, weights=part, minlength=len(level.cohorts)) for part in self._heard[3:]]


def _chance(vehicles: int, turned: float) -> float:
    """How far chance moves a share of so many vehicles, or its angle. The angle scatters the same wherever the share
    is: that none of thirty vehicles is above the median is as rare as it looks. To that, by whom the vehicles differ
    from those of before: the share that came since the middle of what is remembered, and as many who left."""
    return 0.5 * math.sqrt((1 + 2 * turned) / vehicles)


_REFUSED = ("tenant", "device_id", "reason", "refused")
