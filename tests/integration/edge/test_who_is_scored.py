"""Quarantine is no weapon: what an attacker does with a credential of its own, or without any, scores nobody else.

Each way is tried through a real listener with more than enough of it, and then the victim's next message is accepted,
and no transition of it stands in the spool. What can be done with bytes that nobody can read, by holding them back and
cutting connections (`tests.way`), comes last.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from tests.gate import Car, Gate, NewGate, now_ms, until
from tests.http_peer import HttpPeer, HttpsWire
from tests.mqtt_peer import Ended, MqttPeer, publish_bytes, told
from tests.way import Way
from tests.wires import connect

from fleetgate.control.suspicions import Suspicion, note_suspicions

ACCEPTED, HELD = 1, 2
ENOUGH = 30  # and fewer than make the gate read more slowly (`policy.refused_at_once`)


class Attack:
    """An attacker with the credential of `own`, who has seen `captured` messages of `victim` on their way."""

    def __init__(self, gate: Gate, own: Car, victim: Car, captured: list[bytes]) -> None:
        self.gate, self.own, self.victim, self.captured = gate, own, victim, captured

    def topic(self) -> None:
        """The victim's topic."""
        with MqttPeer(self.gate, self.own).hello() as peer:
            for seq in range(ENOUGH):
                assert told(peer.ask(self.own.sign(1, seq), self.victim.topic)) == (0x87, "identity_mismatch")

    def client_id(self) -> None:
        """The victim's client id."""
        for _ in range(ENOUGH):
            with MqttPeer(self.gate, self.own) as peer:
                assert peer.greet(self.victim.device_id).reason_code == 0x85

    def mac_key(self) -> None:
        """The victim's MAC key, stolen, under the attacker's own certificate."""
        with MqttPeer(self.gate, self.own).hello() as peer:
            for seq in range(ENOUGH):
                assert told(peer.ask(self.own.sign(1, seq, key=self.victim.key))) == (0x87, "bad_mac")

    def captured_over_mqtt(self) -> None:
        """The victim's own messages, as they were."""
        with MqttPeer(self.gate, self.own).hello() as peer:
            for raw in self.captured * (ENOUGH // 5):
                assert told(peer.ask(raw)) == (0x87, "bad_mac")

    def captured_over_https(self) -> None:
        """The same in batches."""
        with HttpPeer(self.gate, self.own) as peer:
            for _ in range(ENOUGH // 5):
                assert {item["reason"] for item in peer.batch(*self.captured).items} == {"bad_mac"}

    def garbage(self) -> None:
        """Bytes that are no message, and packets that are none."""
        for _ in range(ENOUGH):
            with MqttPeer(self.gate, self.own).hello() as peer, suppress(Ended):
                peer.publish(b"\x98garbage", self.victim.topic)
                peer.send(b"\xff\xff\xff\xff\xff")
                peer.rest()

    def garbage_of_nobody(self) -> None:
        """Without any certificate, in the place of TLS."""
        for port in (self.gate.mqtt_port, self.gate.https_port):
            for _ in range(ENOUGH):
                with socket.create_connection(("127.0.0.1", port), 5) as plain, suppress(OSError):
                    plain.sendall(b"\x16\x03\x01\x02\x00" + bytes(64))

    def limits(self) -> None:
        """As much as the attacker's own limit takes, and more: that alone is no reason to hold what it sends either."""
        with HttpPeer(self.gate, self.own) as peer:
            raws = [self.own.sign(1, seq) for seq in range(1_600)]
            answers = [peer.batch(*raws[start : start + 400]).status for start in range(0, 1_600, 400)]
            assert (answers[0], answers[-1]) == (202, 429)
        assert "quarantined" not in self.gate.moved(self.own)


ATTACKS: list[Callable[[Attack], None]] = [
    Attack.topic,
    Attack.client_id,
    Attack.mac_key,
    Attack.captured_over_mqtt,
    Attack.captured_over_https,
    Attack.garbage,
    Attack.garbage_of_nobody,
    Attack.limits,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_nobody_puts_another_into_quarantine(
    shared_gate: Gate, car: Car, bystander: MqttPeer, other_car: Car, attack: Callable[[Attack], None]
) -> None:
    """The victim's session lives on, its messages are accepted, and its state never moved."""
    captured = [other_car.sign(bystander.epoch, seq) for seq in range(5)]
    assert [told(bystander.ask(raw)) for raw in captured] == [(0, None)] * 5
    attack(Attack(shared_gate, car, other_car, captured))
    assert told(bystander.ask(other_car.sign(bystander.epoch, 100))) == (0, None)
    assert shared_gate.stored(other_car)[-1].outcome == ACCEPTED
    assert not shared_gate.moved(other_car)


@pytest.mark.parametrize(
    "attack", [Attack.topic, Attack.mac_key, Attack.captured_over_mqtt, Attack.captured_over_https, Attack.garbage],
    ids=lambda attack: attack.__name__,
)  # fmt: skip
def test_who_sends_it_goes_into_quarantine(
    shared_gate: Gate, car: Car, other_car: Car, attack: Callable[[Attack], None]
) -> None:
    """The score is that of the certificate on whose connection it came."""
    attack(Attack(shared_gate, car, other_car, [other_car.sign(1, seq) for seq in range(5)]))
    with HttpPeer(shared_gate, car) as own:
        own.ask(car.sign(9, 0))
    assert shared_gate.stored(car)[-1].outcome == HELD


def test_a_certificate_without_its_key_or_from_another_ca_scores_nobody(
    shared_gate: Gate, bystander: MqttPeer, other_car: Car, tmp_path: Path
) -> None:
    """The victim's name on a certificate of a CA that the gate does not trust: TLS ends it."""
    forger = shared_gate.home.create(tmp_path)
    forged = forger.enrol(other_car.vehicle_id)
    context = other_car.context(forged.directory / "certificate.pem", forged.key_file)
    for _ in range(5):
        with pytest.raises((ssl.SSLError, ConnectionError, Ended)), MqttPeer(shared_gate, other_car, context) as peer:
            peer.greet()
    assert told(bystander.ask(other_car.sign(bystander.epoch, 0))) == (0, None)
    assert not shared_gate.moved(other_car)


def test_a_stolen_credential_that_was_revoked_scores_nobody(shared_gate: Gate, car: Car) -> None:
    """The thief is turned away at the door; the car that got another one is as it was."""
    shared_gate.home.revoke(car)
    renewed = shared_gate.home.enrol(car.vehicle_id)
    assert (renewed.tenant, renewed.device_id) == (car.tenant, car.device_id)

    def turned_away() -> bool:
        with MqttPeer(shared_gate, car) as thief:
            return thief.greet().reason_code == 0x87

    until(turned_away, "the revocation is known")
    for _ in range(ENOUGH):
        assert turned_away()
    with MqttPeer(shared_gate, renewed).hello() as peer:
        assert told(peer.ask(renewed.sign(peer.epoch, 0))) == (0, None)
    assert not shared_gate.moved(car)


def test_what_load_raises_watches_a_device_and_no_more(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """Implausible data, however much of it, and none of another edge's; it is in force within a second."""

    def note(number: int, edge_id: str) -> None:
        found = Suspicion(car.tenant, car.device_id, edge_id, "implausible_data", 1_000, now_ms(), {})
        with shared_gate.home.control() as store:
            assert note_suspicions(store, car.device_id[:32], number, [found]) == 1

    note(1, "edge-elsewhere")
    note(2, shared_gate.home.config.edge.id)
    until(lambda: shared_gate.moved(car), "it is heard and in the spool", 5)
    assert told(session.ask(car.sign(1, 0))) == (0, None)
    assert shared_gate.stored(car)[-1].outcome == ACCEPTED
    assert shared_gate.moved(car) == ["watched"]


@pytest.fixture
def way(shared_gate: Gate) -> Iterator[Way]:
    with Way(shared_gate.mqtt_port, shared_gate.https_port) as way:
        yield way


@pytest.mark.parametrize("ahead_ms", [0, 30_000], ids=["clock right", "clock ahead"])
def test_bytes_of_a_former_session_that_come_late_score_nobody(
    shared_gate: Gate, way: Way, car: Car, ahead_ms: int
) -> None:
    """Held back on the way, the car's connection cut, and let go behind the takeover: it was signed before."""

    def sign(seq: int) -> bytes:
        return car.sign(1, seq, sent_at=now_ms() + ahead_ms)

    for turn in range(4):
        peer = MqttPeer(way, car).hello()
        way.stretches[-1].hold()
        raw = sign(turn)
        peer.publish(raw)
        until(lambda: way.stretches[-1].held, "it is held back")
        way.stretches[-1].cut()
        peer.close()
        with MqttPeer(shared_gate, car).hello() as again:
            assert told(again.ask(raw)) == (0, None)
            time.sleep(0.7)
            way.stretches[-1].let_go()
            time.sleep(0.1)
    assert not shared_gate.moved(car)


def test_an_attempt_to_connect_that_comes_late_scores_nobody(shared_gate: Gate, car: Car) -> None:
    """Its handshake was done, then it was held back on the way with its first message. The car gave it up and connected
    again; the first attempt is let go, and the car goes on, as nobody lets it know that it was taken over."""
    for turn in range(3):
        raw = car.sign(1, 2 * turn)
        with MqttPeer(shared_gate, car) as first, MqttPeer(shared_gate, car).hello() as second:
            assert told(second.ask(raw)) == (0, None)
            first.send(connect(client_id=car.device_id.encode()) + publish_bytes(car.topic, raw, 1))
            time.sleep(0.7)
            second.publish(car.sign(1, 2 * turn + 1))
            time.sleep(0.1)
    assert not shared_gate.moved(car)


def test_a_body_that_is_cut_off_scores_nobody(new_gate: NewGate) -> None:
    """A car that drives into a tunnel does it to itself."""
    gate = new_gate()
    car = gate.home.enrol("victim")
    for seq in range(12):
        with HttpsWire(gate, car) as wire:
            request = wire.request(car.sign(1, seq, body=bytes(9_000)))
            wire.sock.sendall(request[:-1_000])
    until(lambda: gate.metric('fleetgate_connections{transport="https"}') == 0, "the gate has seen them all go")
    with HttpPeer(gate, car) as peer:
        assert peer.ask(car.sign(1, 0))["status"] == "accepted"
    assert not gate.moved(car)


def test_connections_that_somebody_cuts_score_nobody(new_gate: NewGate) -> None:
    """Each time it begins another, until its own limit of connections is used up: told so, recorded, not scored."""
    gate = new_gate(limits={"device": {"connections": "5/h"}})
    car = gate.home.enrol("victim")
    codes = []
    for _ in range(30):
        with MqttPeer(gate, car) as peer:
            codes.append(int(peer.greet().reason_code))
        with HttpPeer(gate, car) as client:
            client.post(car.sign(1, 0))
    assert (codes[0], codes[-1]) == (0, 0x9F)
    assert gate.refused(car, "rate_limited") == 55
    assert not gate.moved(car)


@pytest.mark.parametrize("age_ms", [0, 600_000])
def test_a_request_that_comes_late_is_no_replay(shared_gate: Gate, way: Way, car: Car, age_ms: int) -> None:
    """Held back while its device repeated it over another connection, had its answers and went on for 600 messages, of
    this moment or of a backlog."""
    signed = now_ms() - age_ms
    with HttpPeer(way, car) as held, HttpPeer(shared_gate, car) as client:
        held.batch(car.sign(1, 0))
        raws = [car.sign(1, seq, sent_at=signed) for seq in range(1, 41)]
        way.stretches[0].hold()
        with HttpsWire(way, car) as wire:
            until(lambda: len(way.stretches) == 2, "it is connected")
            way.stretches[1].hold()
            wire.sock.sendall(wire.request(msgspec.msgpack.encode(raws)))
            until(lambda: way.stretches[1].held, "it is held back")
            assert {item["status"] for item in client.batch(*raws).items} == {"accepted"}
            for start in (41, 341):
                client.batch(*(car.sign(1, seq, sent_at=signed) for seq in range(start, start + 300)))
            way.stretches[1].let_go()
            assert wire.sock.recv(15) == b"HTTP/1.1 202 \r\n"
    assert not shared_gate.moved(car)


def test_a_spoofed_receiver_and_whatever_is_done_on_the_way_watch_a_device_and_no_more(
    shared_gate: Gate, session: MqttPeer, car: Car
) -> None:
    """Values of places where it never was, and more than its limit at once."""
    found = [
        Suspicion(car.tenant, car.device_id, shared_gate.home.config.edge.id, signal, 1_000, now_ms(), {})
        for signal in ("implausible_data", "impossible_travel")
    ]
    with shared_gate.home.control() as store:
        assert note_suspicions(store, car.device_id[:32], 1, found) == 2
    until(lambda: shared_gate.moved(car), "it is heard and in the spool", 5)
    stream = [publish_bytes(car.topic, car.sign(1, seq), qos=0) for seq in range(2_000)]
    session.send(b"".join(stream))
    until(lambda: shared_gate.refused(car, "rate_limited") >= 50, "its own limit is used up")
    assert shared_gate.moved(car) == ["watched"]
