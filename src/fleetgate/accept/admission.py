"""What is decided before the judge sees a byte: may this device send now, and can the gate store at all.

A token bucket for each device; one Room for the gate. Limits of tenants and of the gate come with a later part.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fleetgate import log
from fleetgate.config import Spool as SpoolSettings
from fleetgate.spool.home import Spool

RETRY_AFTER_SECONDS = 5

_log = log.get("accept.admission")


class Room:
    """Whether the gate can store: space in the spool and on its disk, a clock to trust, and not draining.

    While it is closed the edge reads nothing from its vehicles, answers HTTP 503 and reports not ready; `why` says so.
    """

    def __init__(self, spool: Spool, settings: SpoolSettings) -> None:
        self._spool = spool
        self._settings = settings
        self.free_bytes = 0
        self.why = ""
        self.on_change: Callable[[], None] = lambda: None

    @property
    def open(self) -> bool:
        return not self.why

    def look(self, doubt: str) -> None:
        """Looks at the disk again; once a second is enough, the floor is above two segments. `doubt` is the clock's."""
        self.free_bytes = self._spool.free_bytes()
        if self.why == "draining":
            return
        if self.free_bytes < self._settings.min_free_bytes:
            self._set(f"free disk is below spool.min_free_bytes ({self.free_bytes} bytes)")
        elif self._spool.writer.total_bytes > self._settings.max_bytes:
            self._set("the spool has reached spool.max_bytes")
        else:
            self._set(doubt)

    def drain(self) -> None:
        self._set("draining")

    def _set(self, why: str) -> None:
        if bool(why) == bool(self.why):
            self.why = why
            return
        self.why = why
        _log.warning("room", open=self.open, why=why)
        self.on_change()


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
