"""An error of the spool's disk ends the edge with a line that says so; nothing acknowledged is lost by it."""

from __future__ import annotations

import resource
from collections.abc import Callable

import httpx
import pytest
from tests.gate import Car, Gate, NewGate
from tests.http_peer import HttpPeer
from tests.mqtt_peer import Ended, MqttPeer, told

LIMIT_BYTES = 300_000
"""Of any file the edge writes (RLIMIT_FSIZE): its live segment meets it, as it would meet a full disk."""


def over_mqtt(gate: Gate, car: Car) -> list[bytes]:
    acked = []
    with MqttPeer(gate, car) as peer:
        peer.hello()
        for seq in range(5_000):
            raw = car.sign(peer.epoch, seq)
            try:
                if told(peer.ask(raw)) == (0, None):
                    acked.append(raw)
            except (Ended, OSError):
                break
    return acked


def over_https(gate: Gate, car: Car) -> list[bytes]:
    acked: list[bytes] = []
    with HttpPeer(gate, car) as peer:
        for batch in range(50):
            raws = [car.sign(1, 100 * batch + i) for i in range(100)]
            try:
                answer = peer.batch(*raws)
            except httpx.HTTPError:
                break
            if answer.status != 202:
                break
            acked += raws
    return acked


@pytest.mark.parametrize("send", [over_mqtt, over_https])
def test_a_write_that_fails_ends_the_edge_and_loses_nothing(
    new_gate: NewGate, send: Callable[[Gate, Car], list[bytes]]
) -> None:
    """Exit 5 with what to do, on either listener; the next start has every acknowledged message, once."""
    limits = {"device": {"messages": "1000000/s"}}
    gate = new_gate(limits=limits, spool={"segment_seconds": 60.0, "checkpoint_seconds": 600.0})
    car = gate.home.enrol("one")
    resource.prlimit(gate.process.pid, resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
    acked = send(gate, car)
    assert gate.process.wait(10) == 5
    assert "mend the disk and start it again" in gate.log()
    assert acked
    gate.start()
    stored = [message.raw for message in gate.stored(car)]
    assert len(stored) == len(set(stored))
    assert set(acked) <= set(stored)
