"""Root keys are changed while an edge runs: over to the next one without a refusal, and the emergency."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.gate import Car, Gate, Installation, running, until
from tests.mqtt_peer import MqttPeer, told

from fleetgate.clock import SystemClock
from fleetgate.control.devices import renew
from fleetgate.control.keyring import Keyring, read_roots

ACCEPTED = (0, None)
UNKNOWN_KEY = (0x87, "unknown_key")


@pytest.fixture(scope="module")
def gate(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """An edge whose keyring went over to root key 2, which it has taken."""
    with running(authority, tmp_path_factory.mktemp("keyring")) as gate:
        gate.home.enrol("silent")
        gate.home.enrol("renewing")
        gate.home.command("keyring", "rotate")
        until(lambda: gate.metric("fleetgate_files_replaced_total") == 1, "the edge has the new keyring")
        keyring = Keyring.load(gate.home.config.path(gate.home.config.edge.keyring))
        until(lambda: keyring.issuing_kid(SystemClock().now_ms()) == 2, "new credentials are made under it")
        yield gate


def of(gate: Gate, vehicle: str) -> Car:
    return next(car for car in gate.home.cars if car.vehicle_id == vehicle)


def test_a_device_goes_over_to_the_new_root_key_by_its_renewal(gate: Gate) -> None:
    """What it signed under the old one is taken, before and after; so is what it signs under the new one."""
    car = of(gate, "renewing")
    with MqttPeer(gate, car) as peer:
        peer.hello()
        assert told(peer.ask(car.sign(1, 0))) == ACCEPTED
        waiting = car.sign(1, 1)
        renewed = gate.home.given(renew, car.tenant, car.device_id)
    assert (car.kid, renewed.kid) == (1, 2)
    with MqttPeer(gate, renewed) as peer:
        peer.hello()
        assert told(peer.ask(waiting)) == ACCEPTED
        assert told(peer.ask(renewed.sign(1, 2))) == ACCEPTED


def test_a_device_that_was_silent_across_a_rotation_is_taken(gate: Gate) -> None:
    """Its credential keeps the old root key in use: it cannot be retired."""
    car = of(gate, "silent")
    with MqttPeer(gate, car) as peer:
        peer.hello()
        assert told(peer.ask(car.sign(1, 0))) == ACCEPTED
    with pytest.raises(AssertionError, match="root key 1 is in use"):
        gate.home.command("keyring", "retire", "1")


def test_missing_kid(gate: Gate) -> None:
    """A root key that the gate does not have is refused as such."""
    car = of(gate, "silent")
    with MqttPeer(gate, car) as peer:
        peer.hello()
        assert told(peer.ask(car.sign(2, 0, kid=99))) == UNKNOWN_KEY


def test_a_withdrawn_root_key_refuses_and_blames_nobody(gate: Gate) -> None:
    """The session stays; whoever goes on under it is refused however often, and is not in quarantine for it."""
    car = gate.home.enrol("withdrawn")
    assert car.kid == 2
    gate.home.command("keyring", "rotate")
    gate.home.command("keyring", "withdraw", "2", "--reason", "a test")
    with MqttPeer(gate, car) as peer:
        peer.hello()
        sequence = iter(range(1000))
        until(lambda: told(peer.ask(car.sign(1, next(sequence)))) == UNKNOWN_KEY, "it is refused")
        for _ in range(15):
            assert told(peer.ask(car.sign(1, next(sequence)))) == UNKNOWN_KEY
        renewed = gate.home.given(renew, car.tenant, car.device_id)
    with MqttPeer(gate, renewed) as peer:
        peer.hello()
        assert told(peer.ask(renewed.sign(1, 999))) == ACCEPTED
    assert gate.stored(renewed)[-1].outcome == 1


def test_a_rotation_under_load_refuses_nobody(gate: Gate) -> None:
    """Cars that send, and renew again and again, go over to the new root key, and none of their messages is refused."""
    cars = [gate.home.enrol(f"busy-{number}") for number in range(3)]
    gate.home.command("keyring", "rotate")
    newest = max(read_roots(gate.home.config.path(gate.home.config.edge.keyring)))

    def drive(car: Car) -> list[tuple[int, str | None]]:
        answers, numbers = [], itertools.count()
        while True:
            with MqttPeer(gate, car) as peer:
                peer.hello()
                for _ in range(20):
                    answers.append(told(peer.ask(car.sign(1, next(numbers)))))
                    time.sleep(0.05)
            if car.kid == newest:
                return answers
            car = gate.home.given(renew, car.tenant, car.device_id)

    with ThreadPoolExecutor() as pool:
        driven = list(pool.map(drive, cars))
    assert [set(answers) for answers in driven] == 3 * [{ACCEPTED}]
    assert all(car.kid < newest for car in cars)
    assert min(map(len, driven)) > 20  # each has sent before and after
