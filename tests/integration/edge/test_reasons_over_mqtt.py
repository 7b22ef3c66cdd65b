"""Every reason through the real MQTT listener: the code, the Reason String, and what the vehicle needs with it."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from tests.gate import Car, Gate, now_ms, until
from tests.mqtt_peer import MqttPeer, told

MINUTE_MS = 60 * 1000
WEEK_MS = 7 * 24 * 60 * MINUTE_MS
OTHER_BODY = b"\x93\xa1b\xa1c\x91\x94\x00\xa9heartbeat\x80\x80"


class Wrong(NamedTuple):
    """A message with one thing wrong, and what it is told. `given` as `Car.sign` takes it."""

    reason: str
    code: int
    given: dict[str, Any]


WRONG = [
    Wrong("malformed_envelope", 0x99, {"enc": 4}),
    Wrong("unsupported_version", 0x99, {"v": 2}),
    Wrong("malformed_body", 0x99, {"body": b"junk"}),
    Wrong("bad_mac", 0x87, {"key": bytes(32)}),
    Wrong("unknown_key", 0x87, {"kid": 77}),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.reason)
def test_a_wrong_message_is_refused_by_its_reason_and_does_not_use_its_number_up(
    session: MqttPeer, car: Car, wrong: Wrong
) -> None:
    """The PUBACK names the reason, and a right message under the same number is then taken."""
    refused = told(session.ask(car.sign(session.epoch, 0, **wrong.given)))
    assert (refused, told(session.ask(car.sign(session.epoch, 0)))) == ((wrong.code, wrong.reason), (0, None))


@pytest.mark.parametrize(("reason", "ahead_ms"), [("clock_ahead", 2 * MINUTE_MS), ("too_old", -WEEK_MS - MINUTE_MS)])
def test_a_message_outside_the_gates_time_is_to_be_sent_again_under_a_new_number(
    session: MqttPeer, car: Car, reason: str, ahead_ms: int
) -> None:
    """More than 60 s ahead or 7 days behind is 0x83."""
    late_or_early = car.sign(session.epoch, 0, sent_at=now_ms() + ahead_ms)
    assert told(session.ask(late_or_early)) == (0x83, reason)


def test_another_cars_topic_is_an_identity_mismatch(session: MqttPeer, car: Car, other_car: Car) -> None:
    """A name in a topic is only compared with the certificate's."""
    assert told(session.ask(car.sign(session.epoch, 0), other_car.topic)) == (0x87, "identity_mismatch")


def test_a_number_far_below_the_highest_is_behind_the_window(session: MqttPeer, car: Car) -> None:
    """1,024 below the highest number seen is 0x83."""
    session.ask(car.sign(session.epoch, 1024))
    assert told(session.ask(car.sign(session.epoch, 0))) == (0x83, "behind_window")


def test_a_stale_epoch_is_told_the_current_one(session: MqttPeer, car: Car) -> None:
    """The PUBACK's user property says where the vehicle goes on above."""
    session.ask(car.sign(7, 0))
    ack = session.ask(car.sign(6, 0))
    assert (*told(ack), ack.user_properties) == (0x83, "stale_epoch", [("current_epoch", "7")])


def test_another_message_under_a_used_number_is_equivocation(session: MqttPeer, car: Car) -> None:
    """Two valid tags under one number are the mark of a clone."""
    session.ask(car.sign(session.epoch, 0))
    assert told(session.ask(car.sign(session.epoch, 0, body=OTHER_BODY))) == (0x87, "equivocation")


def test_the_same_bytes_again_are_a_duplicate_and_stored_once(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """A retry is acknowledged with success, named as what it is, and adds no record."""
    raw = car.sign(session.epoch, 0)
    answers = [told(session.ask(raw)), told(session.ask(raw))]
    assert (answers, len(shared_gate.stored(car))) == ([(0, None), (0, "duplicate")], 1)


def test_a_packet_above_the_maximum_ends_the_session_and_is_recorded_as_oversized(
    shared_gate: Gate, session: MqttPeer, car: Car
) -> None:
    """The announced length is enough for DISCONNECT 0x95; not a byte of the rest is waited for."""
    session.send(b"\x32\xff\xff\xff\x7f")
    assert session.farewell().reason_code == 0x95
    until(lambda: shared_gate.refused(car, "oversized") == 1, "the spool has the refusal")


def test_no_reason_string_goes_to_a_client_that_asked_for_none(shared_gate: Gate, car: Car) -> None:
    """Request Problem Information 0 leaves the code alone (3.1.2.11.7)."""
    with MqttPeer(shared_gate, car) as peer:
        peer.greet(request_problem_info=False)
        assert told(peer.ask(car.sign(1, 0, key=bytes(32)))) == (0x87, None)


# At CONNECT: what the records keep out.


def test_an_unknown_device_is_refused_at_connect(shared_gate: Gate, stranger: Car) -> None:
    """A good certificate without a record is CONNACK 0x87."""
    with MqttPeer(shared_gate, stranger) as peer:
        refused = peer.greet()
        assert (refused.reason_code, refused.reason_str) == (0x87, "unknown_device")


@pytest.mark.parametrize(("deed", "reason", "code"), [
    ("suspend", "suspended", 0x87),
    ("revoke", "revoked", 0x87),
    ("ban", "banned", 0x8A),
])  # fmt: skip
def test_whom_the_records_refuse_is_refused_at_connect(
    shared_gate: Gate, car: Car, deed: str, reason: str, code: int
) -> None:
    """The CONNACK says why."""
    getattr(shared_gate.home, deed)(car)
    with MqttPeer(shared_gate, car) as peer:
        refused = peer.greet()
        assert (refused.reason_code, refused.reason_str, peer.rest()) == (code, reason, [])


@pytest.mark.parametrize(("deed", "reason"), [("suspend", "suspended"), ("revoke", "revoked"), ("ban", "banned")])
def test_whom_the_records_refuse_loses_a_live_session(
    shared_gate: Gate, session: MqttPeer, car: Car, deed: str, reason: str
) -> None:
    """DISCONNECT 0x87 with the reason, without the vehicle having sent anything."""
    getattr(shared_gate.home, deed)(car)
    farewell = session.farewell()
    assert (farewell.reason_code, farewell.reason_str) == (0x87, reason)
