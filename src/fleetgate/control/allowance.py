"""How often something may be asked: a token bucket that is asked for one token at a time.

Decides only the arithmetic; who has which allowance is decided by its owner.
"""

from __future__ import annotations


class Allowance:
    """`burst` at once, refilled at `per_second`. `now_s` is always of the same monotonic clock."""

    __slots__ = ("_burst", "_filled_s", "_per_second", "_tokens")

    def __init__(self, per_second: float, burst: int, now_s: float) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._tokens = self._burst
        self._filled_s = now_s

    def spend(self, now_s: float) -> float:
        """0.0 when one more may pass, else the seconds until it may."""
        self._fill(now_s)
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_second if self._per_second else float("inf")
        self._tokens -= 1
        return 0.0

    def is_full(self, now_s: float) -> bool:
        """Whether it is as good as a new one."""
        self._fill(now_s)
        return self._tokens == self._burst

    def _fill(self, now_s: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now_s - self._filled_s) * self._per_second)
        self._filled_s = now_s
