"""Decides what time it is here, and where chance comes from: one Clock, one seed.

A scenario runs on a virtual clock, the same as its gate's: the variable FLEETGATE_TEST_CLOCK says when it began and how
fast it runs.

It leaves to `core` what time the gate says it is: a device's own clock is only where it starts from.
"""

import asyncio
import random
import time


class Clock:
    """Time that only runs forwards, and the wait that goes with it. It showed `start_ms` when the machine's monotonic
    time was `origin_s`, and runs `speed` times as fast; by default it is the machine's wall clock."""

    def __init__(self, start_ms: float | None = None, speed: float = 1.0, origin_s: float | None = None) -> None:
        # The monotonic clock carries the wall clock from here on: a step of the machine's time during a run would
        # otherwise look like a vehicle that jumps.
        self._origin_s = time.monotonic() if origin_s is None else origin_s
        self._start_ms = time.time() * 1000 if start_ms is None else start_ms
        self.speed = speed

    def now_ms(self) -> float:
        """Unix milliseconds."""
        return self._start_ms + (time.monotonic() - self._origin_s) * 1000 * self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        await asyncio.sleep(max(0.0, seconds / self.speed))


def virtual_clock(setting: str) -> Clock:
    """The clock of FLEETGATE_TEST_CLOCK="<unix ms | now>,<speed>[,<monotonic s>]". Raises ValueError."""
    start, speed, origin = (*setting.split(","), "", "")[:3]
    start_ms = None if start == "now" else float(start)
    return Clock(start_ms, float(speed or "1"), float(origin) if origin else None)


def stream(seed: int, name: str) -> random.Random:
    """The random numbers of one named part: adding a part changes no other part's numbers."""
    return random.Random(f"{seed}/{name}")
