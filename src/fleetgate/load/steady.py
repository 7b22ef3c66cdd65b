"""Threads of load beside the segments: none of them holds up a segment, and none ends before it is told to.

Decides when the next step is made; what is done in it is decided by whoever makes it. What a step did not foresee is
logged, and after a pause the next one is made: a thread that ended would not be missed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from fleetgate import log

ROUND_SECONDS = 60.0
PAUSE_SECONDS = 60.0
"""After what nobody foresaw: some steps that begin anew are not cheap."""


class Steady:
    """Steps while entered, the first after `first_s`; each says for how many seconds there is nothing to do. `last`
    makes one more at the end, which is waited for, for `end_s` at most. `anew` is called after what nobody foresaw.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        *,
        first_s: float = 0.0,
        last: bool = False,
        end_s: float | None = None,
        anew: Callable[[], None] = lambda: None,
    ) -> None:
        self._step = step
        self._first_s = first_s
        self._last = last
        self._end_s = end_s
        self._anew = anew
        self._news = threading.Event()
        self.stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def wake(self) -> None:
        """There is something to do now. Never blocks."""
        self._news.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._news.set()
        self._thread.join(self._end_s)

    def _run(self) -> None:
        self._wait(self._first_s)
        while not self.stopping.is_set():
            self._wait(self._made())
        if self._last:
            self._made()

    def _wait(self, seconds: float) -> None:
        self._news.wait(seconds)
        self._news.clear()

    def _made(self) -> float:
        try:
            return self._step()
        except Exception as error:
            log.get("load").error("unforeseen", thread=self._thread.name, error=log.unforeseen(error))
            self._anew()
            return PAUSE_SECONDS


def rounds(name: str, make_round: Callable[[], None], seconds: float = ROUND_SECONDS) -> Steady:
    """One after so many seconds, again and again, and a last one at the end."""

    def step() -> float:
        make_round()
        return seconds

    return Steady(name, step, first_s=seconds, last=True)
