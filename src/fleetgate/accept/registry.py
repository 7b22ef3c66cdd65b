"""Asks control: who is this device, and what has changed. The only place of the edge that waits for the database.

Polls `changes` every 250 ms and lets each changed record take effect on the devices in memory, so that a revocation
ends live sessions within 2 s. A device that is not in memory is looked up when it connects, several at a time. While
control is away, devices in memory go on for the configured grace and others are told to come back: never let in,
never refused as unknown.

Revisions only grow, unless the database was restored from an older day and changed since: then numbers come again and
mean something else. So the change at which this edge stands is compared at each poll. Where it is another one, all
changes are read again, and what they say may refuse somebody, but lifts no refusal. A key that was revoked stays so
whatever is decided later: no command brings one back. A revocation that is still to come takes effect at its time by
itself, whether control answers or not.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

import trio

from fleetgate import log
from fleetgate.accept.denials import DenialMemory, Denials, denials_of, for_good, strictest
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.known import Key, KnownDevice
from fleetgate.clock import Clock
from fleetgate.control.breaker import overrides
from fleetgate.control.cohorts import Cohort, Mode
from fleetgate.control.profile import CertificateIdentity
from fleetgate.control.records import Change, DeviceRecord
from fleetgate.control.store import LIFTS_NOTHING, REFUSES_NOBODY, SUSPICION, Store
from fleetgate.control.suspicions import Suspicion, suspicions_of
from fleetgate.errors import ControlAway
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.checkpoint import DeviceState as SavedDevice

POLL_SECONDS = 0.25
ANSWER_SECONDS = 2.0  # as long as a revocation may take; the database's own patience is longer than a vehicle's
LOOKUP_BATCH = 200
CHANGES_BATCH = 500
HISTORY_BATCH = 200_000  # changes passed over in one query, of a new edge: 30 ms
LOOK_AGAIN_SECONDS = 1.0

_log = log.get("accept.registry")
_Answer = TypeVar("_Answer")

Found = Callable[[KnownDevice | None], None]
"""Called with the device, or with None when control has no such device."""


class _Changes(NamedTuple):
    """One batch: the newest revision, the change at which the edge stood (None: the database has none under that
    number), the last one above it, those among them that are of interest, the records of their devices, what load
    suspects this edge's devices of, and what people say of cohorts."""

    newest: int
    standing: Change | None
    reached: Change | None
    changes: list[Change]
    records: dict[Key, DeviceRecord]
    suspicions: list[Suspicion]
    overrides: Mapping[Cohort, Mode]


class Registry:
    """Joins control, checkpoint and the edge's own memory of denials into `fleet`."""

    def __init__(
        self,
        store: Store,
        denials: DenialMemory,
        saved: Checkpoint,
        fleet: Fleet,
        clock: Clock,
        grace_s: float,
        edge_id: str = "",
    ) -> None:
        self._edge_id = edge_id
        self._store = store
        self._denials = denials
        self._saved = saved
        self._fleet = fleet
        self._clock = clock
        self._grace_s = grace_s
        self._to_come: list[tuple[int, Key]] = []  # a heap: when a revocation of a device in memory takes effect
        self._awaited: set[tuple[int, Key]] = set()  # the same: a device is looked up again and again until then
        self._wanted: dict[Key, list[tuple[Found, Callable[[], None]]]] = {}
        self._wake = trio.Event()
        self._answered_at = clock.monotonic()
        self.revision = self._position = self._seen_through = denials.revision()
        self._standing = denials.newest()  # the change at `_position`
        self._history = 0  # up to here only changes that may refuse somebody are of interest
        self.answers = True
        self.older_than_seen = False
        self.restores = 0
        self.on_change: Callable[[KnownDevice, int], None] = lambda known, decided_ms: None
        self.on_taken: Callable[[KnownDevice], None] = lambda known: None
        self.on_overrides: Callable[[Mapping[Cohort, Mode]], None] = lambda said: None
        self.on_suspicion: Callable[[KnownDevice, Suspicion], None] = lambda known, suspicion: None
        self.on_grace_over: Callable[[], None] = lambda: None

    @property
    def within_grace(self) -> bool:
        """Whether devices in memory may go on: control answers, or has been away for less than the grace."""
        return self.answers or self._clock.monotonic() - self._answered_at < self._grace_s

    def find(self, identity: CertificateIdentity, found: Found, away: Callable[[], None]) -> None:
        """Calls `found` or `away` with the answer: at once when the device is in memory, else after a look-up.

        A device in memory without this credential is looked up again before it is refused as unknown, at most once a
        second: it may have been enrolled anew since the last poll.
        """
        key = (identity.tenant, identity.device_id)
        known = self._fleet.get(key)
        if known is not None and not self._is_worth_another_look(known, identity):
            if self.within_grace:
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
        """Polls and looks up until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._poll)
            nursery.start_soon(self._await_revocations)
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._wanted:
                    await self._look_up()

    async def _look_up(self) -> None:
        keys = list(self._wanted)[:LOOKUP_BATCH]
        position = self._position
        try:
            rows = await _ask(lambda: self._read(keys))
        except ControlAway as error:
            self._gone(error)
            for key in keys:
                for _, away in self._wanted.pop(key):
                    away()
            return
        self._back()
        if position != self._position:
            return  # what was learnt meanwhile may be missing in these rows, and passed by devices not in memory yet
        for key in keys:
            known = self._take(key, rows.get(key))
            for found, _ in self._wanted.pop(key):
                found(known)

    def _read(self, keys: list[Key]) -> dict[Key, tuple[DeviceRecord, SavedDevice | None, Denials]]:
        """In a worker thread: what the database, the checkpoint and the denials say of these devices."""
        records = self._store.devices(keys)
        return {key: (record, self._saved.device(*key), self._denials.of(*key)) for key, record in records.items()}

    def _take(self, key: Key, row: tuple[DeviceRecord, SavedDevice | None, Denials] | None) -> KnownDevice | None:
        if row is None:
            return None
        record, saved, denials = row
        was_away = self._fleet.get(key) is None
        known = self._fleet.add(record, saved, self._clock.monotonic())
        self._deny(known, strictest(denials_of(record), denials))
        if was_away:
            self.on_taken(known)
        return known

    def _deny(self, known: KnownDevice, denials: Denials) -> None:
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
            await trio.sleep(POLL_SECONDS)
            now_ms = self._clock.now_ms()
            while self._to_come and self._to_come[0][0] <= now_ms:
                from_ms, key = moment = heapq.heappop(self._to_come)
                self._awaited.remove(moment)
                known = self._fleet.get(key)
                if known is not None:  # else it comes back with what the memory of denials says of it
                    self._fleet.deny(known, now_ms)
                    known.decided_ms = from_ms
                    self.on_change(known, from_ms)

    def load(self, keys: list[Key]) -> None:
        """Takes devices into memory before the listeners open, for the replay of the spool. Raises ControlAway."""
        for start in range(0, len(keys), LOOKUP_BATCH):
            batch = keys[start : start + LOOKUP_BATCH]
            for key, row in self._read(batch).items():
                self._take(key, row)

    async def _poll(self) -> None:
        while True:
            try:
                while await self._learn_changes():
                    pass
            except ControlAway as error:
                self._gone(error)
                if not self.within_grace:
                    self.on_grace_over()
            await trio.sleep(POLL_SECONDS)

    async def _learn_changes(self) -> bool:
        """Takes one batch of changes; whether there may be more."""
        if not self._position and (self.revision or not self._fleet):
            # A new edge remembers no denial that an enrolment could lift, and has no device whose record is older than
            # that; one that begins again lets nothing be lifted. So both pass over what refuses nobody: of a million
            # enrolments each device's records were read, 15 s of CPU.
            self._history = await _ask(self._store.revision)
        position = self._position
        found = await _ask(lambda: self._read_changes(position))
        self._back()
        self.on_overrides(found.overrides)
        self._compare(found.newest)
        if position and found.standing != self._standing:
            self._begin_again(found.newest)
            return True
        if found.reached is None:
            return False
        await self._take_suspects(found.suspicions)  # control may be away: then all of this batch is read again
        await self._learn(found.reached, found.changes, found.records)
        self._suspect(found.suspicions)
        return True

    async def _take_suspects(self, suspicions: list[Suspicion]) -> None:
        """Takes devices into memory of which load found something out: they would come back with a score that does not
        know of it. Raises ControlAway."""
        keys = list(dict.fromkeys((suspicion.tenant, suspicion.device_id) for suspicion in suspicions))
        strange = [key for key in keys if self._fleet.get(key) is None]
        for start in range(0, len(strange), LOOKUP_BATCH):
            batch = strange[start : start + LOOKUP_BATCH]
            rows = await _ask(partial(self._read, batch))
            for key in batch:
                if self._fleet.get(key) is None:
                    self._take(key, rows.get(key))

    def _suspect(self, suspicions: list[Suspicion]) -> None:
        """Hands on what load found out. A crash now costs the suspicion, as one before a checkpoint."""
        for suspicion in suspicions:
            known = self._fleet.get((suspicion.tenant, suspicion.device_id))
            if known is not None:
                self.on_suspicion(known, suspicion)

    async def _learn(self, reached: Change, changes: list[Change], records: dict[Key, DeviceRecord]) -> None:
        self._standing, self._position = reached, reached.revision
        # A number up to the highest seen may be that of a change which this database has lost, and a machine lets
        # nobody in: load may repeat a transition after the revocation behind it was lost, and a device renew the
        # credential that was revoked. They only refuse.
        lifting = {
            (change.tenant, change.device_id)
            for change in changes
            if change.revision > self._seen_through and change.kind not in LIFTS_NOTHING
        }
        said = {key: denials_of(records.get(key)) for key in _devices_of(changes)}
        decided_ms = {(change.tenant, change.device_id): change.at_ms for change in changes}
        newest = reached.revision >= self._seen_through
        denials = await trio.to_thread.run_sync(lambda: self._remember(reached, said, lifting, newest=newest))
        for key in denials:
            known, record = self._fleet.get(key), records.get(key)
            if known is not None and record is not None:
                self._fleet.update(known, record)
                self._deny(known, denials[key])
                known.decided_ms = decided_ms[key]
                self.on_change(known, known.decided_ms)
        if newest:
            self.revision = self._seen_through = reached.revision

    def _remember(
        self, reached: Change, said: dict[Key, Denials], lifting: set[Key], *, newest: bool
    ) -> dict[Key, Denials]:
        """In a worker thread: what is to be denied from now on, durable: what the records said and what they may not
        lift."""
        now_ms = self._clock.now_ms()
        denials = {}
        for key, of_records in said.items():
            held = self._denials.of(*key)
            denials[key] = strictest(of_records, for_good(held, now_ms) if key in lifting else held)
        self._denials.learn(reached, denials, newest=newest)
        return denials

    def _compare(self, newest: int) -> None:
        """Notices a database older than what this edge has seen of it."""
        older = newest < self.revision
        if older and not self.older_than_seen:
            _log.error("control_is_older_than_seen", revision=newest, seen=self.revision)
        elif self.older_than_seen and not older:
            _log.warning("control_has_caught_up", revision=newest)
        self.older_than_seen = older

    def _begin_again(self, newest: int) -> None:
        """This database is not the one in which the edge stood: numbers up to its newest may be others' than before."""
        if self._standing is not None:  # else an earlier fleetgate did not keep it
            self.restores += 1
            _log.error("control_was_restored", revision=newest, stood_at=self._position)
        self._position, self._standing = 0, None
        self._seen_through = max(self._seen_through, newest)

    def _read_changes(self, position: int) -> _Changes:
        """In a worker thread."""
        newest = self._store.revision()
        if position < self._history:
            through = min(self._history, newest, position + HISTORY_BATCH)
            found = self._store.changes_that_refuse(position, through, CHANGES_BATCH + 1)
        else:
            found = self._store.changes_from(position, CHANGES_BATCH + 1)
        standing = found[0] if found and found[0].revision == position else None
        above = [change for change in found if change.revision > position]
        reached = above[-1] if above else None
        if position < self._history:
            above = [change for change in above if change.kind not in REFUSES_NOBODY]  # the last one may be one
        new = [change for change in above if change.revision > self._seen_through]
        told = [change.revision for change in new if change.kind == SUSPICION]
        above = [change for change in above if change.kind != SUSPICION]
        keys = _devices_of(above)
        records: dict[Key, DeviceRecord] = {}
        for start in range(0, len(keys), LOOKUP_BATCH):
            records.update(self._store.devices(keys[start : start + LOOKUP_BATCH]))
        suspicions = suspicions_of(self._store, told, self._edge_id)
        return _Changes(newest, standing, reached, above, records, suspicions, overrides(self._store))

    def _gone(self, error: ControlAway) -> None:
        if self.answers:
            _log.error("control_is_away", error=str(error), grace_seconds=self._grace_s)
        self.answers = False

    def _back(self) -> None:
        if not self.answers:
            _log.info("control_is_back")
        self.answers = True
        self._answered_at = self._clock.monotonic()


async def _ask(query: Callable[[], _Answer]) -> _Answer:
    """Runs a query in a worker thread, which is left behind when it hangs. Raises ControlAway."""
    with trio.move_on_after(ANSWER_SECONDS):
        return await trio.to_thread.run_sync(query, abandon_on_cancel=True)
    raise ControlAway(f"the control database of control.url did not answer within {ANSWER_SECONDS:.0f} s")


def _devices_of(changes: list[Change]) -> list[Key]:
    return list(dict.fromkeys((change.tenant, change.device_id) for change in changes))
