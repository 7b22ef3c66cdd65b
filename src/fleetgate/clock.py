"""The one Clock and the one source of randomness; both are passed in, nothing else reads the time.

A production start uses `SystemClock`. Tests and scenarios may run time faster or elsewhere by the variable
FLEETGATE_TEST_CLOCK, which is refused unless the configuration says `testing = true`.

On this clock live vehicles and records: what was sent when, rates, scores, keep-alives, ages. How long this machine may
take for something (a handshake, a poll, a checkpoint, the last words on a socket) is not on it: a virtual day makes no
processor faster. That is trio's or the system's monotonic time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from fleetgate.errors import ConfigError

TEST_CLOCK_VARIABLE = "FLEETGATE_TEST_CLOCK"

Entropy = Callable[[int], bytes]
"""Gives that many random bytes; `os.urandom` in production."""


class Clock(Protocol):
    def now_ms(self) -> int:
        """Unix time in milliseconds; may step when somebody sets the machine's clock."""

    def monotonic(self) -> float:
        """Seconds that only grow, for rates and for how long somebody was silent."""


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()


def utc(ms: float) -> str:
    """A time for a person; a number that no calendar has, as it is."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


class ScaledClock:
    """A virtual clock: it showed `start_ms` when the machine's monotonic time was `origin_s` (default: now), and runs
    `speed` times as fast. Processes that are given the same three agree, however late one of them starts."""

    def __init__(self, start_ms: int, speed: float, origin_s: float | None = None) -> None:
        self._start_ms = start_ms
        self._speed = speed
        self._origin = time.monotonic() if origin_s is None else origin_s

    def now_ms(self) -> int:
        return self._start_ms + int((time.monotonic() - self._origin) * self._speed * 1000)

    def monotonic(self) -> float:
        return self._origin + (time.monotonic() - self._origin) * self._speed


def clock_from_environment(testing: bool) -> Clock:
    """The machine's clock, or the virtual one of FLEETGATE_TEST_CLOCK="<unix ms | now>,<speed>[,<monotonic s>]".

    Raises ConfigError when the variable is set in a start that is not a test: a gate whose time can be chosen
    from outside accepts old messages.
    """
    setting = os.environ.get(TEST_CLOCK_VARIABLE)
    if setting is None:
        return SystemClock()
    if not testing:
        raise ConfigError(
            f"{TEST_CLOCK_VARIABLE} is set, but the configuration does not say `testing = true`: unset the variable"
        )
    start, speed, origin = (*setting.split(","), "", "")[:3]
    try:
        start_ms = SystemClock().now_ms() if start == "now" else int(start)
        return ScaledClock(start_ms, float(speed or "1"), float(origin) if origin else None)
    except ValueError:
        raise ConfigError(f'{TEST_CLOCK_VARIABLE} must be "<unix ms or now>,<speed>[,<monotonic s>]"') from None
