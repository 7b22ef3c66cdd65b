"""Decides how a device lives in one process: drafts in, sessions one after another, and when it is done.

What to send and when to be silent is `core`'s; how bytes travel is the two subclasses' (`mqtt_agent`, `https_agent`).
A renewed credential comes from `renewer`, which works beside the sessions; it is taken up between two of them, so that
nothing is ever signed with one key and sent under another's certificate by this device.
"""

import abc
import asyncio
import contextlib
import logging
import ssl
from collections import deque

from fleetsim.bundle import Bundle, tls_context
from fleetsim.clock import Clock
from fleetsim.commits import Committer
from fleetsim.core import DeviceCore
from fleetsim.outbox import Draft
from fleetsim.renewer import Renewer

log = logging.getLogger("fleetsim")

# Drafts wait here before the first connection and while 512 messages are open; beyond this the oldest is lost, as in
# a real unit whose memory is full.
MAX_BACKLOG = 512
# Nothing should need this: every event that matters wakes the agent. It bounds the harm if one does not.
IDLE_S = 5.0


class Agent(abc.ABC):
    """A device's driver. `run()` goes on until `finish()` was called and everything has its answer."""

    def __init__(
        self, core: DeviceCore, journal: Committer, clock: Clock, server_name: str, renewer: Renewer | None = None
    ) -> None:
        """Raises BundleError."""
        self.core = core
        self.clock = clock
        self.context: ssl.SSLContext = tls_context(core.bundle, server_name)
        self._server_name = server_name
        self._renewer = renewer
        self._renewed: Bundle | None = None
        self.lost_drafts = 0
        self.wake = asyncio.Event()
        self._journal = journal
        self._backlog: deque[Draft] = deque()
        self._room = asyncio.Event()
        self._finishing = False

    async def room(self, seconds: float) -> None:
        """Wait until a draft can be offered without losing another, at most `seconds`."""
        if len(self._backlog) >= MAX_BACKLOG:
            self._room.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._room.wait()

    def offer(self, draft: Draft) -> None:
        """A new message to send, as soon as a number may be given to it."""
        if len(self._backlog) >= MAX_BACKLOG:
            self._backlog.popleft()
            self.lost_drafts += 1
        self._backlog.append(draft)
        self.wake.set()

    def finish(self) -> None:
        """No more drafts will come."""
        self._finishing = True
        self.wake.set()

    @property
    def open_messages(self) -> int:
        """Drafts and messages without an answer."""
        return len(self._backlog) + self.core.open_messages

    @property
    def done(self) -> bool:
        """True after `finish()`, when everything has its answer."""
        return self._finishing and not self.open_messages

    @property
    def over(self) -> bool:
        """True when a session has to end: everything has its answer, or a new credential waits for the next one."""
        return self.done or self._renewed is not None

    async def run(self) -> None:
        """Connect, serve, come back, until done. Raises nothing for what a gate or a network does."""
        renewing = asyncio.create_task(self._renew(self._renewer)) if self._renewer is not None else None
        try:
            while not self.done:
                if self.core.wants_renewal and self._renewer is not None:
                    self._renewer.want()
                await self._until(self.core.pace.away_until_ms)
                self._take_up()
                if not self.done:
                    await self.session()
        finally:
            if renewing is not None:
                renewing.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await renewing

    async def _renew(self, renewer: Renewer) -> None:
        while True:
            self._renewed = await renewer.next(self.core.gate_ms)
            self.wake.set()

    def _take_up(self) -> None:
        """Between two sessions: signs and connects with the new credential from now on."""
        if self._renewed is not None:
            self.context = tls_context(self._renewed, self._server_name)
            self.core.renewed(self._renewed)
            self._renewed = None

    @abc.abstractmethod
    async def session(self) -> None:
        """One connection, from its start to its end; tells the core how it ended."""

    def sign(self) -> None:
        """Give numbers to waiting drafts, and ask for what was signed to be made durable."""
        while self._backlog and self.core.submit(self._backlog[0]):
            self._backlog.popleft()
            self._room.set()
        if self.core.awaits_disk:
            self._journal.ask(self.wake)

    async def until_woken(self, seconds: float = IDLE_S) -> None:
        """Wait for a draft, an answer or the disk, at most `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self.wake.wait()

    def quiet_s(self) -> float:
        """Seconds until something may be sent, at most IDLE_S."""
        left = (self.core.pace.quiet_until_ms - self.clock.now_ms()) / 1000
        return min(left, IDLE_S) if left > 0 else IDLE_S

    async def _until(self, at_ms: float) -> None:
        while not self.over and (left := (at_ms - self.clock.now_ms()) / 1000) > 0:
            self.wake.clear()
            await self.until_woken(min(left, IDLE_S))
