"""One authority for all of these tests and one edge for most of them; a test that breaks its edge has one of its own.

Tests on the shared edge do not see each other: each enrols cars that nobody else has. When an edge goes, its log is
searched for key material and payloads, whatever the test was about.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.gate import Car, Gate, Installation, NewGate, running
from tests.http_peer import HttpPeer
from tests.mqtt_peer import MqttPeer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """What `fleetgate ca init` makes; never run, only copied."""
    return Installation.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def shared_gate(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    with running(authority, tmp_path_factory.mktemp("gate"), edge={"handshake_seconds": 2}) as gate:
        yield gate
        assert gate.process.poll() is None, "one of the tests ended the shared edge"


@pytest.fixture
def new_gate(authority: Installation, tmp_path: Path) -> Iterator[NewGate]:
    """Starts an edge of the test's own, with the given tables of its configuration."""
    with ExitStack() as gates:
        yield lambda **tables: gates.enter_context(running(authority, tmp_path / "gate", **tables))


@pytest.fixture
def stranger(authority: Installation, tmp_path: Path) -> Car:
    """A car with a good certificate that the shared edge's records never heard of."""
    return authority.stranger(tmp_path / "elsewhere", "stranger")


@pytest.fixture
def car(shared_gate: Gate) -> Car:
    """A car of the shared edge that no other test has."""
    return shared_gate.home.enrol(f"car-{next(_numbers)}")


@pytest.fixture
def other_car(shared_gate: Gate) -> Car:
    return shared_gate.home.enrol(f"car-{next(_numbers)}")


@pytest.fixture
def session(shared_gate: Gate, car: Car) -> Iterator[MqttPeer]:
    """A live MQTT session of `car`."""
    with MqttPeer(shared_gate, car) as peer:
        yield peer.hello()


@pytest.fixture
def bystander(shared_gate: Gate, other_car: Car) -> Iterator[MqttPeer]:
    """A live session of another car, which must not notice anything."""
    with MqttPeer(shared_gate, other_car) as peer:
        yield peer.hello()


@pytest.fixture
def client(shared_gate: Gate, car: Car) -> Iterator[HttpPeer]:
    """An HTTPS connection of `car`."""
    with HttpPeer(shared_gate, car) as peer:
        yield peer
