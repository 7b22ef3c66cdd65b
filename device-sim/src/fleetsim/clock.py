"""Decides what time it is here, and where chance comes from: one Clock, one seed.

It leaves to `core` what time the gate says it is: a device's own clock is only where it starts from.
"""

import asyncio
import random
import time


class Clock:
    """Wall-clock time that only runs forwards, and the wait that goes with it."""

    def __init__(self) -> None:
        # The monotonic clock carries the wall clock from here on: a step of the machine's time during a run would
        # otherwise look like a vehicle that jumps.
        self._start_ms = time.time() * 1000 - time.monotonic() * 1000

    def now_ms(self) -> float:
        """Unix milliseconds."""
        return self._start_ms + time.monotonic() * 1000

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        await asyncio.sleep(max(0.0, seconds))


def stream(seed: int, name: str) -> random.Random:
    """The random numbers of one named part: adding a part changes no other part's numbers."""
    return random.Random(f"{seed}/{name}")
