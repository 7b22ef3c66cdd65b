"""Decides when the journal and the ledger are committed: soon after something was written, for all devices at once.

What is in a commit is theirs. An error of the disk ends the run: what cannot be kept must not be sent.
"""

import asyncio
from collections.abc import Callable

from fleetsim.clock import Clock


class Committer:
    """Runs `commit` in a thread whenever somebody asked since the last time, at most every `pause_s`."""

    def __init__(self, commit: Callable[[], None], clock: Clock, pause_s: float) -> None:
        self._commit, self._clock, self._pause_s = commit, clock, pause_s
        self._asked = asyncio.Event()
        self._waiting: set[asyncio.Event] = set()

    def ask(self, when_done: asyncio.Event) -> None:
        """Commit soon; `when_done` is set after that."""
        self._waiting.add(when_done)
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled. Raises sqlite3.Error."""
        while True:
            await self._asked.wait()
            await self._clock.sleep(self._pause_s)
            self._asked.clear()
            waiting, self._waiting = self._waiting, set()
            await asyncio.to_thread(self._commit)
            for event in waiting:
                event.set()


async def commit_every(commit: Callable[[], None], clock: Clock, pause_s: float) -> None:
    """Commit at a fixed pace, until cancelled. Raises sqlite3.Error."""
    while True:
        await clock.sleep(pause_s)
        await asyncio.to_thread(commit)
