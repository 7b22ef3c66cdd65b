"""What people decide at a shell reaches live connections; what a quarantined device sends is kept apart in silence."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.authorities import CA
from tests.gate import Car, Gate, Installation, until
from tests.http_peer import HttpPeer, HttpsWire
from tests.http_peer import told as told_item
from tests.mqtt_peer import MqttPeer, told

ACCEPTED, HELD = 1, 2


def quarantine(session: MqttPeer, car: Car) -> None:
    """Three bad tags of its own put a device into quarantine (default policy: from 100, and 35 each, which fade)."""
    for seq in range(3):
        assert told(session.ask(car.sign(1, seq, key=bytes(32)))) == (0x87, "bad_mac")


def test_the_revoke_command_ends_a_live_session_within_2_s(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """Counted from the return of the command."""
    shared_gate.home.command(
        "device", "revoke", "--tenant", car.tenant, "--device", car.device_id, "--reason", "stolen"
    )
    session.sock.settimeout(2)
    assert session.farewell().reason_str == "revoked"


def test_a_quarantined_device_is_not_told_and_its_messages_are_held(
    shared_gate: Gate, session: MqttPeer, car: Car
) -> None:
    """The same answers as ever over both transports; in the spool the outcome is `held`."""
    before = told(session.ask(car.sign(1, 0)))
    quarantine(session, car)
    with HttpPeer(shared_gate, car) as client:
        assert (told(session.ask(car.sign(1, 1))), told_item(client.ask(car.sign(1, 2)))) == (
            before,
            ("accepted", None),
        )
    assert [message.outcome for message in shared_gate.stored(car)] == [ACCEPTED, HELD, HELD]


def test_a_device_cannot_put_another_into_quarantine(
    shared_gate: Gate, session: MqttPeer, car: Car, bystander: MqttPeer, other_car: Car
) -> None:
    """Another's envelopes and another's topic score the peer that sent them."""
    for seq in range(15):
        session.ask(other_car.sign(1, seq))
        session.ask(car.sign(1, seq), other_car.topic)
    bystander.ask(other_car.sign(1, 100))
    session.ask(car.sign(1, 100))
    assert [shared_gate.stored(one)[-1].outcome for one in (car, other_car)] == [HELD, ACCEPTED]


def test_the_release_command_makes_the_next_message_accepted_within_1_s(
    shared_gate: Gate, session: MqttPeer, car: Car
) -> None:
    """Once load has carried the transition to control, a person can end it; counted from the return of the command."""
    quarantine(session, car)
    shared_gate.carry_transitions(car)
    shared_gate.home.command(
        *("quarantine", "release", "--tenant", car.tenant, "--device", car.device_id),
        *("--classification", "benign", "--reason", "a test"),
    )
    numbers = itertools.count(50)

    def accepted() -> bool:
        session.ask(car.sign(1, next(numbers)))
        return shared_gate.stored(car)[-1].outcome == ACCEPTED

    until(accepted, "a message is accepted again", 1)


def test_the_ban_command_ends_the_session_and_keeps_the_device_out(
    shared_gate: Gate, session: MqttPeer, car: Car
) -> None:
    """DISCONNECT with `banned`, then CONNACK 0x8A."""
    whom = ("--tenant", car.tenant, "--device", car.device_id)
    shared_gate.home.command("quarantine", "ban", *whom, "--reason", "a test")
    assert session.farewell().reason_str == "banned"
    with MqttPeer(shared_gate, car) as again:
        assert again.greet().reason_code == 0x8A


DECISIONS: dict[str, Callable[[Installation, Car], None]] = {
    "revoked": Installation.revoke,
    "suspended": Installation.suspend,
    "banned": Installation.ban,
}


@pytest.mark.parametrize("reason", DECISIONS)
def test_an_idle_https_connection_ends_within_2_s(shared_gate: Gate, car: Car, reason: str) -> None:
    """And the next one is told why with its first answer, which is its last."""
    before = shared_gate.metric("fleetgate_decision_to_effect_seconds_count")
    with HttpsWire(shared_gate, car) as wire:
        assert wire.ask(car.sign(1, 0))[1]["status"] == "accepted"
        DECISIONS[reason](shared_gate.home, car)
        wire.sock.settimeout(2)
        assert wire.sock.recv(1) == b"", "the gate closes it"
    with HttpsWire(shared_gate, car) as again:
        head, item = again.ask(car.sign(1, 1))
        assert (item["status"], item["reason"]) == ("rejected", reason)
        assert b"connection: close" in head.lower()
        assert again.sock.recv(1) == b""
    until(lambda: shared_gate.metric("fleetgate_decision_to_effect_seconds_count") == before + 1, "it is measured")


def test_a_request_on_its_way_is_answered_before_its_connection_ends(shared_gate: Gate, car: Car) -> None:
    """Half of it had come when the device was revoked: the rest is judged, and refused."""
    with HttpsWire(shared_gate, car) as idle, HttpsWire(shared_gate, car) as busy:
        assert idle.ask(car.sign(1, 0))[1]["status"] == busy.ask(car.sign(1, 1))[1]["status"] == "accepted"
        request = busy.request(car.sign(1, 2))
        busy.sock.sendall(request[:-10])
        shared_gate.home.revoke(car)
        assert idle.sock.recv(1) == b"", "it is in force"
        busy.sock.sendall(request[-10:])
        head, item = busy.answer()
        assert (item["reason"], b"connection: close" in head.lower()) == ("revoked", True)
        assert busy.sock.recv(1) == b""


def test_a_request_that_never_ends_does_not_hold_the_connection(shared_gate: Gate, car: Car) -> None:
    """A refused device that sends its body byte by byte is not waited for."""
    with HttpsWire(shared_gate, car) as wire:
        assert wire.ask(car.sign(1, 0))[1]["status"] == "accepted"
        wire.sock.sendall(wire.request(car.sign(1, 1))[:-1])
        shared_gate.home.revoke(car)
        wire.sock.settimeout(2.5)
        assert wire.sock.recv(1) == b""


def test_sessions_end_with_their_certificate(shared_gate: Gate, car: Car, tmp_path: Path) -> None:
    """MQTT with a DISCONNECT, HTTPS closed; the records have nothing to do with it."""
    pki = shared_gate.home.directory / "pki"
    issuer = x509.load_pem_x509_certificate((pki / "issuing.pem").read_bytes())
    key = load_pem_private_key((pki / "issuing.key").read_bytes(), None)
    own = load_pem_private_key(car.key_file.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    assert isinstance(own, EllipticCurvePrivateKey)
    leaf = CA(issuer, key).leaf(car.tenant, car.device_id, key=own, end_s=4)
    context = car.context(*leaf.write(tmp_path))
    with HttpsWire(shared_gate, car, context) as wire, MqttPeer(shared_gate, car, context).hello() as peer:
        assert wire.ask(car.sign(1, 0))[1]["status"] == "accepted"
        assert peer.farewell().reason_str == "the certificate has expired"
        assert wire.sock.recv(1) == b""
