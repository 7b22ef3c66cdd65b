"""A token bucket: what is left of one rate.

Decides only the arithmetic; who has which bucket, and what becomes of who has to wait, is decided by its owner.
"""

from __future__ import annotations

import math

from fleetgate.rates import Rate


class Bucket:
    """What is `left` of a rate as of `at` (monotonic seconds): at most `burst`. It may be overdrawn: something passes
    while one is left, so a batch is never cut in half, and what is known only afterwards is charged afterwards."""

    __slots__ = ("at", "burst", "left", "per_second")

    def __init__(self, rate: Rate) -> None:
        self.burst = float(rate.most)
        self.per_second = rate.most / rate.seconds
        self.left = self.burst
        self.at = -math.inf

    def refill(self, now: float) -> float:
        """What is left at `now`, in monotonic seconds."""
        left = self.left + (now - self.at) * self.per_second
        self.at = now
        self.left = left = left if left < self.burst else self.burst
        return left

    def wait(self) -> float:
        """Seconds until something may pass, as of the last `refill`; 0.0 when it may. A millisecond is added, so that
        rounding turns away nobody who has waited as told."""
        return 0.0 if self.left >= 1 else (1.0 - self.left) / self.per_second + 0.001

    def take(self, count: int, now: float) -> float:
        """0.0 when so many may pass, which are then charged; else the seconds until they may."""
        self.refill(now)
        wait_s = self.wait()
        if not wait_s:
            self.left -= count
        return wait_s

    @property
    def full(self) -> bool:
        """Whether nothing is missing, as of the last `refill`."""
        return self.left >= self.burst
