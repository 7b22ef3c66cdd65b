"""Decides what a vehicle of the load test says: readings of the moving fleet (fleetsim.drive), in the form it speaks.

One small fleet for each process, looked at a few times a second; vehicle n says what the n-th of those that were awake
at the start goes through. Positions therefore repeat among the users, numbers, times and tags do not; and making
content is not what a generator does all day.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetsim.drive import Fleet
from fleetsim.encode import COLUMNS, ROWS_JSON, ROWS_MSGPACK, Event, Form, Name
from fleetsim.outbox import Draft
from fleetsim.signals import BY_NUMBER

VEHICLES = 256
# Speed, odometer, accelerations, position, heading, battery, temperatures: what a car says all the time.
SIGNALS = (1, 2, 3, 4, 7, 8, 10, 13, 15, 16, 18, 40)
STEP_MS = 250
CONFIG = "cfg-load"


class Style(NamedTuple):
    """How a message is written: body encoding, form of the envelope, signals by number or by path."""

    enc: int
    form: Form
    by_path: bool = False


STYLES = {"rows": Style(ROWS_MSGPACK, "msgpack"), "json": Style(ROWS_JSON, "json", by_path=True),
          "columns": Style(COLUMNS, "msgpack")}  # fmt: skip
StyleName = Literal["rows", "json", "columns"]


class Content:
    """Looks back at most `history_s`; an event from before that says what the oldest look showed."""

    def __init__(self, now_s: float, history_s: float, seed: int) -> None:
        self._fleet = Fleet(VEHICLES, int(now_s * 1000), seed)
        self._awake: NDArray[Any] = np.flatnonzero(self._fleet.awake)
        self._names: dict[bool, tuple[Name, ...]] = {False: SIGNALS, True: tuple(BY_NUMBER[n].path for n in SIGNALS)}
        self._looks: deque[tuple[float, NDArray[np.float64]]] = deque(maxlen=int(history_s * 1000 / STEP_MS) + 2)
        self._look()

    def draft(self, vehicle: int, at_s: float, span_s: float, events: int, software: str, style: StyleName) -> Draft:
        """A message of `events` events, the last one at `at_s`, the others before it, spread over `span_s`. The looks
        at the fleet follow `at_s`, which does not run backwards much."""
        last_ms = at_s * 1000
        while self._looks[-1][0] + STEP_MS <= last_ms:
            self._fleet.advance(max(self._looks[-1][0] + STEP_MS, last_ms - STEP_MS * (self._looks.maxlen or 1)))
            self._look()
        chosen = STYLES[style]
        row, names = int(self._awake[vehicle % len(self._awake)]), self._names[chosen.by_path]
        step_ms = span_s * 1000 / events
        times = [last_ms - (events - 1 - number) * step_ms for number in range(events)]
        looked = [at for at, _ in self._looks]
        said = (Event(int(at), "sample", dict(zip(names, self._row(looked, at, row), strict=True)), {}) for at in times)
        return Draft(software, CONFIG, chosen.enc, tuple(said))

    def _row(self, looked: list[float], at_ms: float, row: int) -> list[float]:
        values: list[float] = self._looks[max(0, bisect_right(looked, at_ms) - 1)][1][row].tolist()
        return values

    def _look(self) -> None:
        columns = self._fleet.columns()
        self._looks.append((self._fleet.now_ms, np.stack([columns[number] for number in SIGNALS], axis=1)))
