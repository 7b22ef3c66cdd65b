"""Decides when a device may speak again: backoff after a lost connection, quiet after "later", and the long stop.

Why it must wait is `core`'s to say; that it does wait is the driver's.
"""

import random
from collections.abc import Callable

# "Come back after 10 minutes, doubling to a day."
STOP_MS, STOP_MAX_MS = 600_000, 86_400_000
RETRY_MS, RETRY_MAX_MS = 250, 30_000
LATER_MS, LATER_MAX_MS = 1_000, 30_000


class Pace:
    """Two times in Unix milliseconds of the device's own clock, and how they grow."""

    def __init__(self, now_ms: Callable[[], float], rng: random.Random) -> None:
        self.away_until_ms = 0.0  # no connection before this
        self.quiet_until_ms = 0.0  # connected or not, nothing is sent before this
        self._now_ms, self._rng = now_ms, rng
        self._stops = self._losses = self._delays = 0

    def went_well(self) -> None:
        """A message was stored: all delays start from the bottom again."""
        self._stops = self._losses = self._delays = 0

    def resume(self) -> None:
        """What it was refused for is over: it has another credential."""
        self.away_until_ms = self.quiet_until_ms = self._now_ms()
        self._stops = 0

    def lost(self) -> None:
        """The connection ended or never came up."""
        delay = self._jittered(RETRY_MS, RETRY_MAX_MS, self._losses)
        self._losses += 1
        self.away_until_ms = max(self.away_until_ms, self._now_ms() + delay)

    def later(self, retry_after_s: float | None = None) -> None:
        """The gate has no room: be quiet for as long as it says, or longer each time."""
        if retry_after_s is None:
            delay = self._jittered(LATER_MS, LATER_MAX_MS, self._delays)
            self._delays += 1
        else:
            delay = retry_after_s * 1000
        self.quiet_until_ms = max(self.quiet_until_ms, self._now_ms() + delay)

    def stop(self) -> None:
        """The gate refuses this device."""
        now = self._now_ms()
        if self.away_until_ms - now > RETRY_MAX_MS:
            return  # several messages of one connection are refused for one cause: one stop
        self.away_until_ms = self.quiet_until_ms = now + min(STOP_MS << min(self._stops, 16), STOP_MAX_MS)
        self._stops += 1

    def _jittered(self, base_ms: int, most_ms: int, times: int) -> float:
        # Half fixed, half jitter: a fleet that lost its gate together does not come back together.
        ceiling = min(base_ms << min(times, 16), most_ms)
        return ceiling / 2 + self._rng.random() * ceiling / 2
