"""The vehicles one by one: when each was heard of last, how often it speaks, where it was, what it runs.

Decides what a vehicle's own past says of it: whether it is known, that it jumped, that numbers of its messages are
missing. Arrays beside one another, one entry for each vehicle that was heard of in the last hour or two, and while many
are silent for each of those; which changes of many of them are an alert is decided elsewhere.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fleetgate.load.travel import jumps
from fleetgate.load.watch.cohorts import CELL_DEGREES, Cell, Cohort
from fleetgate.load.watch.looks import Columns

KNOWN_MS, KNOWN_INTERVALS = 150_000, 3
"""A vehicle that was heard of within either can fall silent; later it is parked, for all that anybody knows."""

AWAY_MS = 10 * 60 * 1000
"""Who was away for longer has come anew: a vehicle that was parked."""

LONGEST_KNOWN_MS = KNOWN_INTERVALS * AWAY_MS
FORGET_MS = 3600 * 1000

STEPS = 12
"""Looks of which what was heard is kept: two minutes at least."""

_NOWHERE = -1
_Name = TypeVar("_Name")


class Step(NamedTuple):
    """What was heard in `seconds` until `at_ms`, a row for each vehicle, device and epoch; `vehicle` is its place in
    the fleet."""

    at_ms: int
    seconds: float
    vehicle: NDArray[np.int64]
    messages: NDArray[np.int64]
    events: NDArray[np.int64]
    faults: NDArray[np.int64]
    unknown: NDArray[np.int64]
    readings: NDArray[np.int64]
    implausible: NDArray[np.int64]
    missing: NDArray[np.int64]


class Level(NamedTuple):
    """Cohorts that share no vehicle; `of` is the place among them of each vehicle's, or -1."""

    cohorts: list[Cohort]
    of: NDArray[np.int64]


COUNTED = ("messages", "events", "faults", "unknown", "readings", "implausible")
_NUMBERS = {
    "last_ms": 0,
    "interval_ms": np.nan,  # between pulses, smoothed; NaN until there were two
    "since_ms": 0,  # it is here, and runs what it runs, since then
    "delay_ms": 0,
    "held": 0,  # its device is in quarantine: nobody keeps what it reports
    "latitude": np.nan,
    "longitude": np.nan,
    "place_ms": 0,
    "jumped_ms": 0,
    "epoch": -1,
    "last_seq": -1,
    "tenant": 0,
    "software": 0,
    "config": 0,
    "cell": _NOWHERE,
    "left_cell": _NOWHERE,  # where it was before it jumped
}


class Fleet:
    def __init__(self) -> None:
        self._places: dict[tuple[str, str], int] = {}
        self._devices: dict[tuple[str, str], int] = {}
        self._words: dict[str, int] = {}
        self._cells: dict[Cell, int] = {}
        self._columns = {name: np.full(64, blank, np.float64) for name, blank in _NUMBERS.items()}
        self._steps: deque[Step] = deque(maxlen=STEPS)

    def __len__(self) -> int:
        return len(self._places)

    def column(self, name: str) -> NDArray[np.float64]:
        """One number of each vehicle, by the names above; times in Unix ms."""
        return self._columns[name][: len(self)]

    def heard_after(self, at_ms: int) -> Step:
        """All that was heard in the looks that ended after this time; at least one was."""
        steps = [step for step in self._steps if step.at_ms > at_ms]
        columns = [np.concatenate(parts) for parts in list(zip(*steps, strict=True))[2:]]
        return Step(steps[-1].at_ms, sum(step.seconds for step in steps), *columns)

    def vehicle_of(self, tenant: str, device_id: str) -> int | None:
        """The place of the vehicle that a device sits in."""
        return self._devices.get((tenant, device_id))

    def take(self, heard: Columns, after_ms: int, at_ms: int) -> None:
        """What was heard between two times, the last one last."""
        rows, missing = self._note(heard)
        counted = [*(heard[name] for name in COUNTED), missing]
        self._steps.append(Step(at_ms, (at_ms - after_ms) / 1000, rows, *counted))

    def recall(self, heard: Columns) -> None:
        """Who was heard of before the first look, and when and where; how much belongs to no look."""
        rows, _ = self._note(heard)
        several = heard["pulses"] > 1
        interval = (heard["last_ms"] - heard["first_ms"])[several] / (heard["pulses"][several] - 1)
        self._columns["interval_ms"][rows[several]] = interval

    def _note(self, heard: Columns) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The place of each row's vehicle, and how many of its numbers are missing."""
        rows = np.array(
            [
                self._place(*names)
                for names in zip(heard["tenant"], heard["vehicle_id"], heard["device_id"], strict=True)
            ],
            np.int64,
        )
        labels = [
            np.array([self._word(word) for word in heard[name]], np.int64) for name in ("tenant", "software", "config")
        ]
        missing = self._take_numbers(rows, heard)
        self._take_times(rows, labels, heard)
        self._take_positions(rows, heard)
        return rows, missing

    def forget(self, at_ms: int) -> None:
        """Drops those not heard of in the hour before; call it rarely, it renumbers the others."""
        keep = np.flatnonzero(self.column("last_ms") > at_ms - FORGET_MS)
        new = np.full(len(self), _NOWHERE)
        new[keep] = np.arange(len(keep))
        self._columns = {
            name: np.concatenate([part[keep], np.full(64, _NUMBERS[name])]) for name, part in self._columns.items()
        }
        self._places = {key: int(new[place]) for key, place in self._places.items() if new[place] != _NOWHERE}
        self._devices = {key: int(new[place]) for key, place in self._devices.items() if new[place] != _NOWHERE}
        self._words = self._renumbered(self._words, ("tenant", "software", "config"))
        self._cells = self._renumbered(self._cells, ("cell", "left_cell"))
        for _ in range(len(self._steps)):
            step = self._steps.popleft()
            left = new[step.vehicle] != _NOWHERE
            self._steps.append(
                Step(step.at_ms, step.seconds, new[step.vehicle[left]], *[part[left] for part in step[3:]])
            )

    def _renumbered(self, codes: dict[_Name, int], names: tuple[str, ...]) -> dict[_Name, int]:
        """Those that these columns still use, numbered anew in them: a device may call its software something else with
        each message."""
        columns = [self.column(name) for name in names]
        used = np.unique(np.concatenate(columns)).astype(np.int64)
        used = used[used != _NOWHERE]
        for column in columns:
            there = column != _NOWHERE
            column[there] = np.searchsorted(used, column[there])
        of_code = list(codes)
        return {of_code[code]: place for place, code in enumerate(used.tolist())}

    def known(self, at_ms: int) -> NDArray[np.bool_]:
        """Of each vehicle, whether it was heard of so shortly before this time that it could fall silent, and not
        since."""
        ago, interval = at_ms - self.column("last_ms"), self.column("interval_ms")
        lately: NDArray[np.bool_] = (ago >= 0) & (ago <= np.fmax(KNOWN_MS, KNOWN_INTERVALS * interval))
        return lately & ~np.isnan(interval)

    def known_in(self, cohort: Cohort, at_ms: int) -> int:
        """How many vehicles of a cohort those are."""
        those = self.known(at_ms) & (self.column("tenant") == self._words.get(cohort.tenant, -1))
        for name, word in (("software", cohort.software), ("config", cohort.config)):
            if word is not None:
                those &= self.column(name) == self._words.get(word, -1)
        if cohort.cell is not None:
            near = [code for cell, code in self._cells.items() if cohort.related(cohort._replace(cell=cell))]
            those &= np.isin(self.column("cell"), near)
        return int(np.count_nonzero(those))

    def levels(self) -> list[Level]:
        """All of a tenant; each software; each configuration of each software."""
        names = list(self._words)
        codes = [self.column(name).astype(np.int64) for name in ("tenant", "software", "config")]
        found = []
        for depth in (1, 2, 3):
            key = np.zeros(len(self), np.int64)
            for code in codes[:depth]:
                key = key * len(names) + code
            _, first, of = np.unique(key, return_index=True, return_inverse=True)
            cohorts = [Cohort(*(names[code[place]] for code in codes[:depth])) for place in first.tolist()]
            found.append(Level(cohorts, of))
        return found

    def all_tenants(self) -> Level:
        """Each software, in all tenants together."""
        names = list(self._words)
        found, of = np.unique(self.column("software").astype(np.int64), return_inverse=True)
        return Level([Cohort("", names[code]) for code in found.tolist()], of)

    def cells(self, which: str) -> Level:
        """By `cell` or `left_cell`; vehicles without a position are in none."""
        names, cells = list(self._words), list(self._cells)
        tenant, cell = self.column("tenant").astype(np.int64), self.column(which).astype(np.int64)
        placed = np.flatnonzero(cell != _NOWHERE)
        _, first, inverse = np.unique(
            tenant[placed] * (len(cells) + 1) + cell[placed], return_index=True, return_inverse=True
        )
        of = np.full(len(self), _NOWHERE)
        of[placed] = inverse
        cohorts = [Cohort(names[tenant[place]], cell=cells[cell[place]]) for place in placed[first].tolist()]
        return Level(cohorts, of)

    def _place(self, tenant: str, vehicle_id: str, device_id: str) -> int:
        place = self._places.setdefault((tenant, vehicle_id), len(self._places))
        self._devices[tenant, device_id] = place
        if place >= len(self._columns["last_ms"]):
            self._columns = {
                name: np.concatenate([part, np.full(len(part), _NUMBERS[name])]) for name, part in self._columns.items()
            }
        return place

    def _word(self, word: str) -> int:
        return self._words.setdefault(word, len(self._words))

    def _take_numbers(self, rows: NDArray[np.int64], heard: Columns) -> NDArray[np.int64]:
        """How many numbers above all that was heard before are missing, of each row. Where a backlog came along it is
        at least so many: a number that comes late is no gap, and neither are those between it and what came before."""
        epoch, last_seq = self._columns["epoch"], self._columns["last_seq"]
        before = np.where(epoch[rows] == heard["epoch"], last_seq[rows], heard["first_seq"] - 1)
        epoch[rows], last_seq[rows] = heard["epoch"], np.maximum(before, heard["last_seq"])
        missing: NDArray[np.int64] = np.maximum(heard["last_seq"] - before - heard["messages"], 0).astype(np.int64)
        return missing

    def _take_times(self, rows: NDArray[np.int64], labels: list[NDArray[np.int64]], heard: Columns) -> None:
        columns = self._columns
        gap = heard["last_ms"] - columns["last_ms"][rows]
        came = (columns["last_ms"][rows] == 0) | (gap > AWAY_MS)
        for name, label in zip(("tenant", "software", "config"), labels, strict=True):
            came |= columns[name][rows] != label
            columns[name][rows] = label
        columns["since_ms"][rows[came]] = heard["last_ms"][came]
        paced = (gap > 0) & (gap <= AWAY_MS)
        known = columns["interval_ms"][rows]
        each = gap / np.maximum(heard["pulses"], 1)
        smoothed = np.where(np.isnan(known), each, 0.8 * known + 0.2 * each)
        columns["interval_ms"][rows[paced]] = smoothed[paced]
        columns["last_ms"][rows] = np.maximum(columns["last_ms"][rows], heard["last_ms"])
        for name in ("delay_ms", "held"):
            columns[name][rows] = heard[name]

    def _take_positions(self, rows: NDArray[np.int64], heard: Columns) -> None:
        columns = self._columns
        some = np.flatnonzero((heard["located"] != 0) & (heard["place_ms"] > columns["place_ms"][rows]))
        rows = rows[some]
        latitude, longitude, place_ms = (heard[name][some] for name in ("latitude", "longitude", "place_ms"))
        was = [columns[name][rows] for name in ("latitude", "longitude", "place_ms")]
        jumped = jumps(was[0], was[1], was[2], latitude, longitude, place_ms)
        columns["jumped_ms"][rows[jumped]] = heard["last_ms"][some][jumped]
        columns["left_cell"][rows[jumped]] = columns["cell"][rows[jumped]]
        columns["latitude"][rows], columns["longitude"][rows], columns["place_ms"][rows] = latitude, longitude, place_ms
        corners = zip(
            *(np.floor(part / CELL_DEGREES).astype(int).tolist() for part in (latitude, longitude)), strict=True
        )
        columns["cell"][rows] = [self._cells.setdefault(corner, len(self._cells)) for corner in corners]
