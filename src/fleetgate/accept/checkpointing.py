"""When devices are saved, and in which order: so that no crash finds a window ahead of what is on disk.

Decides the pace: a few devices at a time, so that nobody waits. What is saved of a device is decided by `fleet`, how it
lies in the file by `spool.checkpoint`, what a start makes of it by `recovery`.
"""

from __future__ import annotations

from typing import Final

import trio

from fleetgate import fault
from fleetgate.accept.breaker import Breaker
from fleetgate.accept.census import Census
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.intake import Intake
from fleetgate.accept.issuertrouble import IssuerTrouble
from fleetgate.clock import Clock
from fleetgate.spool.format import AlertRecord
from fleetgate.spool.home import Spool

ROUND_SECONDS: Final = 0.1
DEVICES_AT_ONCE: Final = 32  # 0.1 ms of copying on this thread; a look-up waits 0.3 ms, seldom 15


class Checkpointing:
    """Of one edge, with its devices and open alerts."""

    def __init__(
        self,
        spool: Spool,
        fleet: Fleet,
        intake: Intake,
        breaker: Breaker,
        issuer_trouble: IssuerTrouble,
        census: Census,
        clock: Clock,
    ) -> None:
        self._spool = spool
        self._fleet = fleet
        self._intake = intake
        self._breaker = breaker
        self._issuer_trouble = issuer_trouble
        self._census = census
        self._clock = clock

    async def run(self, every_s: float) -> None:
        """Begins a checkpoint every so often, and takes half of that time for it. Raises SpoolError."""
        due_s = trio.current_time() + every_s
        while True:
            await trio.sleep(ROUND_SECONDS)
            now_s = trio.current_time()
            if now_s >= due_s:
                due_s = now_s + every_s
                await self.save(over_s=every_s / 2)

    async def save(self, over_s: float) -> None:
        """Behind a seal, the position; then the devices changed up to it, a few at a time, spread over `over_s`.

        A device is saved as it is when its turn comes, with everything in it committed: a crash may lose no message
        that its window in the checkpoint would call a duplicate.
        """
        self._intake.commit()
        self._spool.writer.seal()
        position, changed = self._spool.writer.next_segment - 1, self._fleet.changed()
        fault.point("checkpoint.begun")
        for start in range(0, len(changed), DEVICES_AT_ONCE):
            self._intake.commit()
            with trio.CancelScope(shield=True):  # what is taken is saved, or the next position would pass over it
                devices = self._fleet.take(changed[start : start + DEVICES_AT_ONCE], self._clock.now_ms())
                await trio.to_thread.run_sync(self._spool.checkpoint.save, devices)
            fault.point("checkpoint.saved")
            await trio.sleep(over_s * DEVICES_AT_ONCE / len(changed))
        if changed or position != self._spool.checkpoint.segment():
            self._intake.commit()  # an alert that was opened or closed meanwhile is in the spool first
            alerts = [*self._breaker.now_open(), *self._issuer_trouble.now_open()]
            await trio.to_thread.run_sync(self._advance, position, alerts)
            fault.point("checkpoint.advanced")
        self._fleet.forget_idle(self._clock.monotonic())
        await self._census.count_if_due()

    def _advance(self, position: int, alerts: list[AlertRecord]) -> None:
        self._spool.checkpoint.keep_alerts(alerts)
        self._spool.checkpoint.advance(position)
