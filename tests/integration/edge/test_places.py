"""Places of connections: nobody keeps another's, and the gate never runs out of descriptors for its spool."""

from __future__ import annotations

import resource
import socket
import ssl

import msgspec
import pytest
from tests.gate import NewGate, until
from tests.http_peer import HttpPeer, told

from fleetgate.accept import descriptors
from fleetgate.accept.https import MAX_CONNECTIONS_OF_A_CREDENTIAL
from fleetgate.config import Edge

OPEN = 'fleetgate_connections{transport="https"}'


def test_the_place_of_an_https_client_that_left_is_free_at_once(new_gate: NewGate) -> None:
    """A request and a close: the connection is not counted until some timeout."""
    gate = new_gate()
    car = gate.home.enrol("one")
    for seq in range(5):
        with HttpPeer(gate, car) as peer:
            assert told(peer.ask(car.sign(1, seq))) == ("accepted", None)
    until(lambda: gate.metric(OPEN) == 0, "all places are free", 5)


def test_one_device_cannot_take_everybodys_https_places(new_gate: NewGate) -> None:
    """Silent connections of one device, far more than the gate has places: another device is served meanwhile."""
    gate = new_gate(edge={"max_http_connections": 20})
    greedy, other = gate.home.enrol("greedy"), gate.home.enrol("other")
    context = greedy.context()
    held: list[ssl.SSLSocket] = []
    try:
        for _ in range(30):
            plain = socket.create_connection(("127.0.0.1", gate.https_port), timeout=10)
            held.append(context.wrap_socket(plain, server_hostname="localhost"))
        until(lambda: gate.metric(OPEN) == MAX_CONNECTIONS_OF_A_CREDENTIAL, "the device has its share", 10)
        with HttpPeer(gate, other) as peer:
            assert told(peer.ask(other.sign(1, 0))) == ("accepted", None)
    finally:
        for connection in held:
            connection.close()


def test_limits_of_connections_fit_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 1,024 descriptors and no more to be had, the connections leave a reserve for the spool."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    fitting = descriptors.fit(Edge())
    taken = fitting.max_connections + fitting.max_http_connections + fitting.max_handshakes
    assert 0 < taken <= 1024 - descriptors.RESERVE
    small = msgspec.structs.replace(Edge(), max_connections=100, max_http_connections=100, max_handshakes=100)
    assert descriptors.fit(small) == small
