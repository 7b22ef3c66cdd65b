"""What an edge does every so often, beside the road: seals by age, deletes what is loaded, looks at disk, clock and
control, lets scores fade.

Decides when, and that the clock is in doubt behind a fence too. What follows is decided by the rooms that are asked:
`room` stops the reading, `scorekeeper` moves devices, `issuertrouble` raises alerts. Checkpoints are `checkpointing`'s.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import trio

from fleetgate import log
from fleetgate.accept.breaker import Breaker
from fleetgate.accept.contact import Contact
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.intake import Intake
from fleetgate.accept.issuertrouble import IssuerTrouble
from fleetgate.accept.room import Room
from fleetgate.accept.timekeeping import Timekeeper
from fleetgate.clock import Clock
from fleetgate.errors import SpoolError
from fleetgate.judge import Flag
from fleetgate.sdnotify import ServiceManager
from fleetgate.spool.home import Spool

ROUND_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 1.0
BEHIND_SEGMENTS: Final = 30
BEHIND_TIMES: Final = 10
"""While that many segments wait for load, nobody waits for the next one: it is sealed ten times later. What a segment
costs load beside its rows (six tables, a row of the chain) is paid once for all of it when the backlog drains."""

_log = log.get("accept.upkeep")


class Upkeep:
    """Of one edge. Segments are sealed when they are `segment_s` old."""

    def __init__(
        self,
        spool: Spool,
        segment_s: float,
        fleet: Fleet,
        contact: Contact,
        intake: Intake,
        room: Room,
        breaker: Breaker,
        issuer_trouble: IssuerTrouble,
        clock: Clock,
    ) -> None:
        self._spool = spool
        self._segment_s = segment_s
        self._fleet = fleet
        self._contact = contact
        self._intake = intake
        self._room = room
        self._breaker = breaker
        self._issuer_trouble = issuer_trouble
        self._clock = clock
        self._timekeeper = Timekeeper(clock)
        self._behind_times = 1
        self._cursor_trouble = ""

    async def run(self, manager: ServiceManager) -> None:
        """Until cancelled. `manager` hears that the edge works, or why it does not. Raises SpoolError."""
        writer, look_due_s = self._spool.writer, -math.inf
        while True:
            await trio.sleep(ROUND_SECONDS)
            manager.working(self._room.why)
            if writer.live_age_ms() >= self._segment_s * self._behind_times * 1000:
                self._intake.commit()
                writer.seal()
            now_s = trio.current_time()
            if now_s >= look_due_s:
                look_due_s = now_s + LOOK_SECONDS
                await self._look_around()

    async def _look_around(self) -> None:
        self.look()
        self._note_control()
        self._intake.scores.relax(self._clock.now_ms())
        self._issuer_trouble.look(self._clock.now_ms(), self._breaker.sizes)
        await self._delete_loaded()
        self._behind_times = BEHIND_TIMES if self._spool.waiting() > BEHIND_SEGMENTS else 1

    def look(self) -> None:
        """Asks whether messages may be taken: for room, and by the clock."""
        self._room.look(self._doubt())

    def _doubt(self) -> str:
        """Why nothing may be judged by the time it is; empty when everything may."""
        fenced_ms = self._spool.identity.fence_ms - self._clock.now_ms()
        if fenced_ms > 0:
            # Until then a device's new message could bear a time from before the fence.
            return (
                "the spool was repaired, or its disk replaced, and does not know all that was received: "
                f"taking messages in {fenced_ms // 1000} s"
            )
        return self._timekeeper.doubt(self._fleet.all())

    def _note_control(self) -> None:
        """Flags what is accepted while control is away: revocations may be missing."""
        flags = 0 if self._contact.answers else Flag.STALE_REVOCATION.value
        if flags != self._intake.policy.standing_flags:
            self._intake.policy = msgspec.structs.replace(self._intake.policy, standing_flags=flags)

    async def _delete_loaded(self) -> None:
        """In a thread: to unlink a few segments takes the file system up to 20 ms. A cursor that cannot be believed is
        load's trouble: it ends the deleting, never the receiving."""
        try:
            await trio.to_thread.run_sync(self._spool.delete_loaded)
            self._cursor_trouble = ""
        except SpoolError as error:
            if str(error) != self._cursor_trouble:
                self._cursor_trouble = str(error)
                _log.error("nothing_is_deleted", error=self._cursor_trouble)
