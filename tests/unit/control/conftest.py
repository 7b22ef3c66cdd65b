"""What the tests of control stand on: a clock that is set by hand, a real CA, a real keyring, a real database."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.control.devices import Enrolment, enrol
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.store import Store


class SetClock:
    """Stands still until somebody sets it."""

    def __init__(self) -> None:
        self.ms = SystemClock().now_ms()

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


class Gate:
    """A control database with all that is needed to enrol into it."""

    def __init__(self, config: Config, clock: SetClock, authority: Authority, keyring: Keyring) -> None:
        self.config = config
        self.clock = clock
        self.authority = authority
        self.keyring = keyring
        self.store = Store.open(config, clock, create=True)

    def enrol(self, vehicle: str = "car", device: str | None = None, tenant: str = "acme") -> Enrolment:
        with self.store.write("test") as write:
            return enrol(write, self.authority, self.keyring, tenant, vehicle, device)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("pki"), "fleet.example", SystemClock())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return msgspec.structs.replace(Config(), home=str(tmp_path))


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def gate(config: Config, clock: SetClock, authority: Authority, tmp_path: Path) -> Iterator[Gate]:
    keyring = Keyring.create(tmp_path / "keyring.json", clock.now_ms(), os.urandom)
    gate = Gate(config, clock, authority, keyring)
    yield gate
    gate.store.close()


@pytest.fixture
def car(gate: Gate) -> Gate:
    """A gate with one device, car-tcu, in the vehicle car of acme."""
    gate.enrol()
    return gate
