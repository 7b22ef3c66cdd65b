"""Follows control: what has changed since a device was looked up.

Polls `changes` every 250 ms and lets each changed record take effect on the devices in memory, so that a revocation
ends live sessions within 2 s; who a device is, is asked by `registry`.

Revisions only grow, unless the database was restored from an older day and changed since: then numbers come again and
mean something else. So the change at which this edge stands is compared at each poll. Where it is another one, all
changes are read again, and what they say may refuse somebody, but lifts no refusal. A key that was revoked stays so
whatever is decided later: no command brings one back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import trio

from fleetgate import log
from fleetgate.accept.contact import Contact
from fleetgate.accept.denials import DenialMemory, Denials, denials_of, for_good, strictest
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.known import Key, KnownDevice
from fleetgate.accept.registry import LOOKUP_BATCH, Registry
from fleetgate.clock import Clock
from fleetgate.control.breaker import overrides
from fleetgate.control.cohorts import Cohort, Mode
from fleetgate.control.records import Change, DeviceRecord
from fleetgate.control.store import LIFTS_NOTHING, REFUSES_NOBODY, SUSPICION, Store
from fleetgate.control.suspicions import Suspicion, suspicions_of
from fleetgate.errors import ControlAway

POLL_SECONDS = 0.25
CHANGES_BATCH = 500
HISTORY_BATCH = 200_000  # changes passed over in one query, of a new edge: 30 ms

_log = log.get("accept.changes")


class Changes(NamedTuple):
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


class Follower:
    """Of one edge, on the devices of `registry`. `revision` is the newest that it has learnt, `older_than_seen` whether
    control is older than that, `restores` how often it was found to have gone on from an older day."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        denials: DenialMemory,
        fleet: Fleet,
        contact: Contact,
        clock: Clock,
        edge_id: str = "",
    ) -> None:
        self._registry = registry
        self._store = store
        self._denials = denials
        self._fleet = fleet
        self._contact = contact
        self._clock = clock
        self._edge_id = edge_id
        self.revision = self._position = self._seen_through = registry.learnt = denials.revision()
        self._standing = denials.newest()  # the change at `_position`
        self._history = 0  # up to here only changes that may refuse somebody are of interest
        self.older_than_seen = False
        self.restores = 0
        self.on_overrides: Callable[[Mapping[Cohort, Mode]], None] = lambda said: None
        self.on_suspicion: Callable[[KnownDevice, Suspicion], None] = lambda known, suspicion: None
        self.on_grace_over: Callable[[], None] = lambda: None

    async def run(self) -> None:
        """Polls until cancelled."""
        while True:
            try:
                while await self._learn_changes():
                    pass
            except ControlAway:
                if not self._contact.within_grace:
                    self.on_grace_over()
            await trio.sleep(POLL_SECONDS)

    async def _learn_changes(self) -> bool:
        """Takes one batch of changes; whether there may be more."""
        if not self._position and (self.revision or not self._fleet):
            # A new edge remembers no denial that an enrolment could lift, and has no device whose record is older than
            # that; one that begins again lets nothing be lifted. So both pass over what refuses nobody: of a million
            # enrolments each device's records were read, 15 s of CPU.
            self._history = await self._contact.ask(self._store.revision)
        position = self._position
        found = await self._contact.ask(lambda: self._read_changes(position))
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
            rows = await self._contact.ask(partial(self._registry.read, batch))
            for key in batch:
                if self._fleet.get(key) is None:
                    self._registry.take(key, rows.get(key))

    def _suspect(self, suspicions: list[Suspicion]) -> None:
        """Hands on what load found out. A crash now costs the suspicion, as one before a checkpoint."""
        for suspicion in suspicions:
            known = self._fleet.get((suspicion.tenant, suspicion.device_id))
            if known is not None:
                self.on_suspicion(known, suspicion)

    async def _learn(self, reached: Change, changes: list[Change], records: dict[Key, DeviceRecord]) -> None:
        self._stand_at(reached)
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
                self._registry.deny(known, denials[key])
                self._registry.changed(known, decided_ms[key])
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
        self._stand_at(None)
        self._seen_through = max(self._seen_through, newest)

    def _stand_at(self, change: Change | None) -> None:
        self._standing = change
        self._position = self._registry.learnt = change.revision if change is not None else 0

    def _read_changes(self, position: int) -> Changes:
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
        return Changes(newest, standing, reached, above, records, suspicions, overrides(self._store))


def _devices_of(changes: list[Change]) -> list[Key]:
    return list(dict.fromkeys((change.tenant, change.device_id) for change in changes))
