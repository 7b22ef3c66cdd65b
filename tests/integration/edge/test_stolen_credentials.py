"""Whoever has a revoked credential of a device keeps nobody out: neither the device with its next, nor others."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.gate import Car, Gate, Installation, NewGate, running
from tests.http_peer import HttpPeer, HttpsWire
from tests.http_peer import told as told_item
from tests.mqtt_peer import MqttPeer, told

from fleetgate.accept.https import MAX_CONNECTIONS_OF_A_CREDENTIAL


def stolen_and_next(gate: Gate) -> tuple[Car, Car]:
    """A car as its thief has it, revoked, and as it was enrolled anew. The edge has heard of neither."""
    stolen = gate.home.enrol("victim")
    gate.home.revoke(stolen)
    renewed = gate.home.enrol("victim")
    assert renewed.device_id == stolen.device_id
    return stolen, renewed


def told_over_mqtt(gate: Gate, car: Car) -> tuple[int, str | None]:
    with MqttPeer(gate, car).hello() as peer:
        return told(peer.ask(car.sign(peer.epoch, 0)))


@pytest.mark.parametrize("speaks", [True, False], ids=["asks", "says nothing"])
@pytest.mark.parametrize("level", ["device", "tenant", "issuer"])
def test_its_handshakes_use_up_nobodys_limit(authority: Installation, tmp_path: Path, level: str, speaks: bool) -> None:
    """One is all that there is, over both transports: the edge finds out about the certificate even where no word
    follows the handshake, and the first, which it could not know, is given back."""
    with running(authority, tmp_path, limits={level: {"handshakes": "1/h"}}) as gate:
        stolen, renewed = stolen_and_next(gate)
        for _ in range(4):
            with MqttPeer(gate, stolen) as peer:
                if speaks:
                    assert peer.greet().reason_code == 0x87
                else:
                    time.sleep(0.2)  # it is looked up meanwhile
            with HttpPeer(gate, stolen) as client:
                if speaks:
                    assert told_item(client.ask(stolen.sign(1, 0))) == ("rejected", "revoked")
        assert told_over_mqtt(gate, renewed) == (0, None)
        assert gate.metric(f'fleetgate_limit_hits_total{{level="{level}",quantity="handshakes"}}') == 0


def test_its_connections_take_none_of_its_victims_places(new_gate: NewGate) -> None:
    """Silent ones over HTTPS, more than one credential may have."""
    gate = new_gate()
    stolen, renewed = stolen_and_next(gate)
    with ExitStack() as held:
        for _ in range(2 * MAX_CONNECTIONS_OF_A_CREDENTIAL):
            held.enter_context(HttpsWire(gate, stolen))
        with HttpPeer(gate, renewed) as peer:
            assert told_item(peer.ask(renewed.sign(1, 0))) == ("accepted", None)
