"""The line to control: whether it answers, and how long devices in memory may go on while it does not.

Decides how long an answer is waited for. What is asked is decided by `registry` and `changes`; they are the only rooms
of the edge that wait for the database.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import trio

from fleetgate import log
from fleetgate.clock import Clock
from fleetgate.errors import ControlAway

ANSWER_SECONDS: Final = 2.0
"""As long as a revocation may take; the database's own patience is longer than a vehicle's."""

_log = log.get("accept.contact")
_Answer = TypeVar("_Answer")


class Contact:
    """`answers`: whether control did when it was last asked."""

    def __init__(self, clock: Clock, grace_s: float) -> None:
        self._clock = clock
        self._grace_s = grace_s
        self._answered_at = clock.monotonic()
        self.answers = True

    @property
    def within_grace(self) -> bool:
        """Whether devices in memory may go on: control answers, or has been away for less than the grace."""
        return self.answers or self._clock.monotonic() - self._answered_at < self._grace_s

    async def ask(self, query: Callable[[], _Answer]) -> _Answer:
        """Runs a query in a worker thread, which is left behind when it hangs. Raises ControlAway."""
        try:
            answer = await _ask(query)
        except ControlAway as error:
            if self.answers:
                _log.error("control_is_away", error=str(error), grace_seconds=self._grace_s)
            self.answers = False
            raise
        if not self.answers:
            _log.info("control_is_back")
        self.answers = True
        self._answered_at = self._clock.monotonic()
        return answer


async def _ask(query: Callable[[], _Answer]) -> _Answer:
    with trio.move_on_after(ANSWER_SECONDS):
        return await trio.to_thread.run_sync(query, abandon_on_cancel=True)
    raise ControlAway(f"the control database of control.url did not answer within {ANSWER_SECONDS:.0f} s")
