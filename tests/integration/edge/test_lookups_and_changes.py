"""A look-up that was overtaken by a change of the records: the older answer must not stand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio
from tests.gate import Installation, until

from fleetgate.accept.changes import Follower
from fleetgate.accept.contact import Contact
from fleetgate.accept.denials import DenialMemory
from fleetgate.accept.fleet import Fleet
from fleetgate.accept.limits import Limits, no_hits
from fleetgate.accept.registry import Registry
from fleetgate.clock import SystemClock
from fleetgate.control.keyring import Keyring
from fleetgate.control.records import DeviceRecord
from fleetgate.control.store import Store
from fleetgate.spool.home import Spool


class SlowStore(Store):
    """Control whose first answer about devices is on its way until the edge has learnt of a change made after it."""

    follower: Follower
    home: Installation
    slow = True

    def devices(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], DeviceRecord]:
        rows = super().devices(names)
        if self.slow:
            self.slow = False
            self.home.quarantine(self.home.cars[0])
            before = self.follower.revision
            until(lambda: self.follower.revision > before, "the edge has learnt of the change", 1.5)
        return rows


def test_what_another_edge_decided_during_a_lookup_is_not_missed(authority: Installation, tmp_path: Path) -> None:
    """The device was in no memory when the change passed, and its record was read before: it is looked up again."""
    home = authority.copy(tmp_path / "gate")
    home.configure()
    car = home.enrol("one")
    clock = SystemClock()
    spool = Spool(tmp_path / "spool", clock, os.urandom)
    denials = DenialMemory(spool.directory / "denials.db")
    fleet = Fleet(Keyring.load(home.config.path("keyring.json")).roots, Limits(home.config.limits, no_hits()))
    found: list[Any] = []

    async def look_up() -> None:
        with SlowStore.open(home.config, clock) as store:
            assert isinstance(store, SlowStore)
            denials.learn(store.changes_from(store.revision(), 1)[0], {})
            contact = Contact(clock, 900)
            registry = Registry(store, denials, spool.checkpoint, fleet, contact, clock)
            store.follower, store.home = Follower(registry, store, denials, fleet, contact, clock), home
            async with trio.open_nursery() as nursery:
                nursery.start_soon(registry.run)
                nursery.start_soon(store.follower.run)
                with trio.fail_after(10):
                    found.append(await registry.lookup(car.identity))
                nursery.cancel_scope.cancel()

    trio.run(look_up)
    denials.close()
    spool.close()
    [known] = found
    assert known.device.held
