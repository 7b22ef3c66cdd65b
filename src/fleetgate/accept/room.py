"""How full the spool is, and what follows: warn, stop, go on again, and when it will be full at this pace.

Decides the thresholds. Two things limit a spool: spool.max_bytes, and the free disk that must stay. Whichever leaves
less counts. While the room is closed the edge reads nothing from its vehicles, answers HTTP 503 with Retry-After,
turns away who connects (CONNACK 0x88) and reports not ready; what was acknowledged is safe meanwhile.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from fleetgate import log
from fleetgate.clock import Clock
from fleetgate.config import Spool as SpoolSettings
from fleetgate.spool.home import Spool

WARN_SHARE = 0.75
"""Warned from here on. A quarter is left: after hours of an outage that is hours to act, and a working gate, which
keeps seconds of traffic, never comes near."""

CALM_SHARE = 0.70
"""The warning ends here and not at once below 0.75, where it would come and go with each segment."""

RESUME_MARGIN = 0.05
"""Open again when 5 % of each limit are free: at the limit itself every deleted segment would let a second of traffic
in and shut the door again, and each time thousands of vehicles would begin anew."""

RETRY_AFTER_SECONDS = 5
"""Of every 503: a closed room is looked at once a second, and a drain ends within 10."""

PACE_SECONDS = 180.0
PACE_STEP_SECONDS = 5.0
PACE_LEAST_SECONDS = 30.0
"""The pace is that of the last three minutes: the saw-tooth of writing a segment and deleting it behind a checkpoint
(10 s) is flat in it, and an outage shows after half a minute."""

_log = log.get("accept.room")


class Room:
    """Whether the gate can store: space in the spool and on its disk, a clock to trust, and not draining.

    `why` says why not. `full_share` is 0 for an empty spool, 1 where it is full; `full_seconds` how long until then at
    the pace of the last minutes, infinite while it does not grow.
    """

    def __init__(self, spool: Spool, settings: SpoolSettings, clock: Clock) -> None:
        self._spool = spool
        self._settings = settings
        self._pace = _Pace(clock)
        self._full = False
        self.warned = False
        self.free_bytes = 0
        self.full_share = 0.0
        self.full_seconds = math.inf
        self.why = ""
        self.on_change: Callable[[], None] = lambda: None

    @property
    def open(self) -> bool:
        return not self.why

    def look(self, doubt: str) -> None:
        """Looks at the disk again; once a second is enough, the floor is above two segments. `doubt` is the clock's."""
        settings, held = self._settings, self._spool.writer.total_bytes
        self.free_bytes = self._spool.free_bytes()
        left = min(settings.max_bytes - held, self.free_bytes - settings.min_free_bytes)
        self.full_share = self._share(held, left)
        self.full_seconds = self._pace.seconds_until_none(left)
        self._warn()
        if self.why != "draining":
            self._set(self._no_space(held) or doubt)

    def _share(self, held: int, left: int) -> float:
        """Of what the spool may come to use; where others fill its disk, how near that is to the floor."""
        if left <= 0:
            return 1.0
        return max(held / (held + left), self._settings.min_free_bytes / self.free_bytes)

    def _no_space(self, held: int) -> str:
        """Why no more is taken; with a margin, once that has begun."""
        settings, margin = self._settings, RESUME_MARGIN if self._full else 0.0
        self._full = True
        if self.free_bytes < settings.min_free_bytes * (1 + margin):
            return f"free disk is below spool.min_free_bytes ({self.free_bytes} bytes)"
        if held > settings.max_bytes * (1 - margin):
            return "the spool has reached spool.max_bytes"
        self._full = False
        return ""

    def _warn(self) -> None:
        if self.full_share >= WARN_SHARE and not self.warned:
            self.warned = True
            soon = "not growing" if math.isinf(self.full_seconds) else f"{self.full_seconds:.0f} s"
            _log.warning("spool_fills", full=f"{self.full_share:.0%}", until_full=soon, free_bytes=self.free_bytes)
        elif self.full_share < CALM_SHARE and self.warned:
            self.warned = False
            _log.warning("spool_has_room_again", full=f"{self.full_share:.0%}")

    def drain(self) -> None:
        self._set("draining")

    def _set(self, why: str) -> None:
        if bool(why) == bool(self.why):
            self.why = why
            return
        self.why = why
        _log.warning("room", open=self.open, why=why)
        self.on_change()


class _Pace:
    """How fast the space that is left goes, over the last minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque(maxlen=int(PACE_SECONDS / PACE_STEP_SECONDS) + 1)

    def seconds_until_none(self, left: int) -> float:
        """`left` bytes now. Infinite while they do not become fewer, and in the first half minute."""
        now_s = self._clock.monotonic()
        if not self._seen or now_s - self._seen[-1][0] >= PACE_STEP_SECONDS:
            self._seen.append((now_s, left))
        since_s, before = self._seen[0]
        if left <= 0:
            return 0.0
        if now_s - since_s < PACE_LEAST_SECONDS or before <= left:
            return math.inf
        return left * (now_s - since_s) / (before - left)
