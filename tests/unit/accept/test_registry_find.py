"""Looking a device up keeps it: what a request goes on with must be the device the fleet has."""

from __future__ import annotations

from pathlib import Path

import msgspec
from tests.gates import IDENTITY, Gate, record
from tests.units import DEVICE_ID, TENANT

from fleetgate.accept.contact import Contact
from fleetgate.accept.denials import DenialMemory
from fleetgate.accept.fleet import IDLE_SECONDS
from fleetgate.accept.known import KnownDevice
from fleetgate.accept.registry import Registry
from fleetgate.config import Config
from fleetgate.control.store import Store


def test_a_device_that_was_just_found_is_not_forgotten(gate: Gate, tmp_path: Path) -> None:
    """A request that is still reading its body must not claim numbers in windows that nobody else sees."""
    config = msgspec.structs.replace(Config(), home=str(tmp_path))
    found: list[KnownDevice | None] = []
    with Store.open(config, gate.clock, create=True) as store:
        denials = DenialMemory(tmp_path / "denials.db")
        registry = Registry(store, denials, gate.spool.checkpoint, gate.fleet, Contact(gate.clock, 900), gate.clock)
        known = gate.fleet.add(record(), None, gate.clock.monotonic())
        gate.clock.ms += int(2_000 * IDLE_SECONDS)
        registry.find(IDENTITY, found.append, lambda: None)
        gate.fleet.forget_idle(gate.clock.monotonic() + 30)
        denials.close()
    assert (found, gate.fleet.get((TENANT, DEVICE_ID))) == ([known], known)
