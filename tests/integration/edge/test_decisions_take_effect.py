"""What people decide at a shell reaches live connections; what a quarantined device sends is kept apart in silence."""

from __future__ import annotations

import itertools

from tests.gate import Car, Gate, until
from tests.http_peer import HttpPeer
from tests.http_peer import told as told_item
from tests.mqtt_peer import MqttPeer, told

ACCEPTED, HELD = 1, 2


def quarantine(session: MqttPeer, car: Car) -> None:
    """Eleven bad tags of its own put a device into quarantine (default policy: from 100, and 10 each, which decay)."""
    for seq in range(11):
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
        "quarantine", "release", "--tenant", car.tenant, "--device", car.device_id, "--classification", "benign"
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
    shared_gate.home.command("quarantine", "ban", "--tenant", car.tenant, "--device", car.device_id)
    assert session.farewell().reason_str == "banned"
    with MqttPeer(shared_gate, car) as again:
        assert again.greet().reason_code == 0x8A
