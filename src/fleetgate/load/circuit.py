"""A circuit: whoever failed several times in a row is left alone for a while, then asked once.

Decides only when; who is asked, and what a failure is, is its owner's. (The breaker is another thing: `accept.breaker`
holds a cohort of devices.)
"""

from __future__ import annotations

from typing import Final

FAILURES: Final = 5  # in a row; a receiver that restarts fails fewer
FIRST_PAUSE_S: Final = 30.0
LONGEST_PAUSE_S: Final = 900.0


class Circuit:
    """`now_s` is always of the same monotonic clock; `jitter` is a factor about 1."""

    def __init__(self) -> None:
        self._failures = 0
        self._until_s = 0.0

    @property
    def open(self) -> bool:
        return self._failures >= FAILURES

    def wait_s(self, now_s: float) -> float:
        """0.0 when one try may be made."""
        return max(0.0, self._until_s - now_s) if self.open else 0.0

    def good(self) -> None:
        self._failures = 0

    def bad(self, now_s: float, jitter: float) -> None:
        """Twice as long a pause with each try that fails."""
        self._failures += 1
        pause_s = FIRST_PAUSE_S * 2.0 ** min(16, max(0, self._failures - FAILURES))
        self._until_s = now_s + jitter * min(LONGEST_PAUSE_S, pause_s)
