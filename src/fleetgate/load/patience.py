"""What cannot be done now is tried until it can, and the reason for waiting is told: to whoever asks `why`, and to the
service manager, which learns in the same way that load does not hang.

Decides the pauses and which failures are waited for: ClickHouse, control or the spool's disk is away. Any other error
is the caller's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from fleetgate import log
from fleetgate.clock import Entropy
from fleetgate.errors import ClickHouseAway, ControlAway, SpoolError
from fleetgate.load.counts import Counts
from fleetgate.sdnotify import ServiceManager

FIRST_PAUSE_SECONDS = 0.2

T = TypeVar("T")


class Stopped(Exception):
    """The process was asked to end while a segment was waiting; its cursor stays behind it."""


class Patience:
    """`why` is what is waited for, empty when nothing is. `meanwhile` is done before each pause in which ClickHouse is
    waited for; `longest_s` is the longest pause. Ends when `stop` is set."""

    def __init__(
        self,
        longest_s: float,
        meanwhile: Callable[[], None],
        counts: Counts,
        entropy: Entropy,
        stop: threading.Event,
        manager: ServiceManager,
    ) -> None:
        self._longest_s = longest_s
        self._meanwhile = meanwhile
        self._counts = counts
        self._entropy = entropy
        self._stop = stop
        self._manager = manager
        self._log = log.get("load")
        self.why = ""

    def insist(self, what: str, attempt: Callable[[int], T]) -> T:
        """Tries until it succeeds, with growing, jittered pauses; `attempt` gets the number of failed tries. Raises
        Stopped."""
        tries = 0
        while True:
            try:
                result = attempt(tries)
            except (ClickHouseAway, ControlAway, SpoolError) as error:
                # On the way to ClickHouse the end of the chain is written into the spool (chain.json).
                cause = "spool" if isinstance(error, SpoolError) else what
                self.note(str(error))
                self._log.warning("waiting", what=cause, tries=tries, error=str(error))
            else:
                self._counts.away.set(0)
                self.note("")
                return result
            self._counts.retries.labels(cause).inc()
            if what == "ClickHouse":
                self._counts.away.set(cause == what)
                self._meanwhile()
            if self._stop.wait(self._pause_seconds(tries)):
                raise Stopped
            tries += 1

    def note(self, why: str) -> None:
        """Load is at work, or waits for this reason; said at every turn."""
        self.why = why
        self._manager.working(why)

    def _pause_seconds(self, tries: int) -> float:
        longest: float = min(FIRST_PAUSE_SECONDS * 2 ** min(tries, 16), self._longest_s)
        return longest * (0.5 + int.from_bytes(self._entropy(2)) / 2**17)
