"""What is decided before the judge sees a byte: may this device send now? Whether the gate can store is room.py's.

A token bucket for each device. Limits of tenants and of the gate come with a later part.
"""

from __future__ import annotations

import math


class Bucket:
    """Messages a device may still send: `burst` at once, refilled at `rate` a second.

    `used_at` is when it was last used, in monotonic seconds.

    A request passes while the bucket is above zero and may overdraw it, so that a batch is never cut in half.
    """

    __slots__ = ("_burst", "_rate", "_tokens", "used_at")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self.used_at = -math.inf

    def limit(self, rate: float, burst: float) -> None:
        """Other limits from now on; what is in the bucket stays."""
        self._rate, self._burst = rate, burst

    def take(self, count: int, now: float) -> float:
        """0.0 when the messages may pass, else the seconds until the bucket is above zero again. `now` in seconds."""
        tokens = self._tokens + (now - self.used_at) * self._rate
        self.used_at = now
        if tokens > self._burst:
            tokens = self._burst
        if tokens <= 0:
            self._tokens = tokens
            return max(0.001, (1.0 - tokens) / self._rate)
        self._tokens = tokens - count
        return 0.0
