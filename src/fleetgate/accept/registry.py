"""Asks control: who is this device? And holds against the records what this edge was told before.

A device that is not in memory is looked up when it connects, several at a time. While control is away, devices in
memory go on for the configured grace and others are told to come back: never let in, never refused as unknown. A
revocation that is still to come takes effect at its time by itself, whether control answers or not. What has changed
since a device was looked up is learnt by `changes`; how long control is waited for is decided by `contact`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import trio

from fleetgate.accept.contact import Contact
from fleetgate.accept.denials import DenialMemory, Denials, denials_of, strictest
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.known import Key, KnownDevice
from fleetgate.clock import Clock
from fleetgate.control.profile import CertificateIdentity
from fleetgate.control.records import DeviceRecord
from fleetgate.control.store import Store
from fleetgate.errors import ControlAway
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.checkpoint import DeviceState as SavedDevice

LOOK_SECONDS = 0.25
LOOKUP_BATCH = 200
LOOK_AGAIN_SECONDS = 1.0

Row = tuple[DeviceRecord, SavedDevice | None, Denials]
"""What the database, the checkpoint and the memory of denials say of a device."""

Found = Callable[[KnownDevice | None], None]
"""Called with the device, or with None when control has no such device."""


class Registry:
    """Joins control, checkpoint and the edge's own memory of denials into `fleet`.

    `learnt` is the revision up to which changes were learnt: rows that were read before it moved may lack one.
    """

    def __init__(
        self, store: Store, denials: DenialMemory, saved: Checkpoint, fleet: Fleet, contact: Contact, clock: Clock
    ) -> None:
        self._store = store
        self._denials = denials
        self._saved = saved
        self._fleet = fleet
        self._contact = contact
        self._clock = clock
        self._to_come: list[tuple[int, Key]] = []  # a heap: when a revocation of a device in memory takes effect
        self._awaited: set[tuple[int, Key]] = set()  # the same: a device is looked up again and again until then
        self._wanted: dict[Key, list[tuple[Found, Callable[[], None]]]] = {}
        self._wake = trio.Event()
        self.learnt = 0
        self.on_change: Callable[[KnownDevice, int], None] = lambda known, decided_ms: None
        self.on_taken: Callable[[KnownDevice], None] = lambda known: None

    def find(self, identity: CertificateIdentity, found: Found, away: Callable[[], None]) -> None:
        """Calls `found` or `away` with the answer: at once when the device is in memory, else after a look-up.

        A device in memory without this credential is looked up again before it is refused as unknown, at most once a
        second: it may have been enrolled anew since the last poll.
        """
        key = (identity.tenant, identity.device_id)
        known = self._fleet.get(key)
        if known is not None and not self._is_worth_another_look(known, identity):
            if self._contact.within_grace:
                known.idle_since = self._clock.monotonic()  # a request that is on its way must not lose its device
                found(known)
            else:
                away()
            return
        if known is not None:
            known.looked_at = self._clock.monotonic()
        self._wanted.setdefault(key, []).append((found, away))
        self._wake.set()

    def _is_worth_another_look(self, known: KnownDevice, identity: CertificateIdentity) -> bool:
        looked_s_ago = self._clock.monotonic() - known.looked_at
        return not known.has_record_of(identity.key_digest) and looked_s_ago >= LOOK_AGAIN_SECONDS

    async def lookup(self, identity: CertificateIdentity) -> KnownDevice | None:
        """The same for a task. Raises ControlAway."""
        answered = trio.Event()
        box: list[KnownDevice | None] = []

        def found(known: KnownDevice | None) -> None:
            box.append(known)
            answered.set()

        self.find(identity, found, answered.set)
        await answered.wait()
        if not box:
            raise ControlAway("control does not answer")
        return box[0]

    async def run(self) -> None:
        """Looks up until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._await_revocations)
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._wanted:
                    await self._look_up()

    async def _look_up(self) -> None:
        keys = list(self._wanted)[:LOOKUP_BATCH]
        learnt = self.learnt
        try:
            rows = await self._contact.ask(lambda: self.read(keys))
        except ControlAway:
            for key in keys:
                for _, away in self._wanted.pop(key):
                    away()
            return
        if learnt != self.learnt:
            return  # what was learnt meanwhile may be missing in these rows, and passed by devices not in memory yet
        for key in keys:
            known = self.take(key, rows.get(key))
            for found, _ in self._wanted.pop(key):
                found(known)

    def read(self, keys: list[Key]) -> dict[Key, Row]:
        """In a worker thread: those of these devices that control has. Raises ControlAway, SpoolError."""
        records = self._store.devices(keys)
        return {key: (record, self._saved.device(*key), self._denials.of(*key)) for key, record in records.items()}

    def take(self, key: Key, row: Row | None) -> KnownDevice | None:
        """Takes a device into memory, as it was read."""
        if row is None:
            return None
        record, saved, denials = row
        was_away = self._fleet.get(key) is None
        known = self._fleet.add(record, saved, self._clock.monotonic())
        self.deny(known, strictest(denials_of(record), denials))
        if was_away:
            self.on_taken(known)
        return known

    def deny(self, known: KnownDevice, denials: Denials) -> None:
        """Holds what this edge was told before against a database that no longer says it."""
        known.denials = denials
        for denial in denials.values():
            moment = (denial.from_ms, known.key)
            if denial.from_ms > self._clock.now_ms() and moment not in self._awaited:
                self._awaited.add(moment)
                heapq.heappush(self._to_come, moment)
        self._fleet.deny(known, self._clock.now_ms())

    async def _await_revocations(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            now_ms = self._clock.now_ms()
            while self._to_come and self._to_come[0][0] <= now_ms:
                from_ms, key = moment = heapq.heappop(self._to_come)
                self._awaited.remove(moment)
                known = self._fleet.get(key)
                if known is not None:  # else it comes back with what the memory of denials says of it
                    self._fleet.deny(known, now_ms)
                    self.changed(known, from_ms)

    def changed(self, known: KnownDevice, decided_ms: int) -> None:
        """What the records say of it is something else since then (Unix ms)."""
        known.decided_ms = decided_ms
        self.on_change(known, decided_ms)

    def load(self, keys: list[Key]) -> None:
        """Takes devices into memory before the listeners open, for the replay of the spool. Raises ControlAway."""
        for start in range(0, len(keys), LOOKUP_BATCH):
            batch = keys[start : start + LOOKUP_BATCH]
            for key, row in self.read(batch).items():
                self.take(key, row)
