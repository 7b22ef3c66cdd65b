"""A copied credential, and clocks that go wrong, as the gate sees them."""

from __future__ import annotations

import itertools

from tests.gate import Car, Gate, now_ms
from tests.http_peer import HttpPeer
from tests.http_peer import told as told_item
from tests.mqtt_peer import MqttPeer, told
from tests.units import BODY

ACCEPTED, HELD = 1, 2
CLOCK_SKEW = 8
OTHER_BODY = BODY.replace(b"2026.44.1", b"2026.44.2")


def test_two_live_sessions_with_one_certificate(shared_gate: Gate, car: Car) -> None:
    """The clone takes the session over, the car takes it back: there is never more than one."""
    with MqttPeer(shared_gate, car).hello() as original, MqttPeer(shared_gate, car).hello() as clone:
        assert original.farewell().reason_code == 0x8E
        with MqttPeer(shared_gate, car).hello() as again:
            assert clone.farewell().reason_code == 0x8E
            assert told(again.ask(car.sign(1, 0))) == (0, None)


def test_interleaved_numbers_of_a_clone_end_in_quarantine(shared_gate: Gate, car: Car) -> None:
    """Car and clone count on from the same state: each number comes twice with another content, which no honest device
    does. It is refused as equivocation, and before long all that comes under the credential is kept apart."""
    numbers = itertools.count()

    def one_round(seq: int) -> str | None:
        with MqttPeer(shared_gate, car).hello() as original:
            assert told(original.ask(car.sign(7, seq))) == (0, None)
        with HttpPeer(shared_gate, car) as clone:
            return told_item(clone.ask(car.sign(7, seq, body=OTHER_BODY)))[1]

    assert [one_round(next(numbers)) for _ in range(6)] == ["equivocation"] * 6
    outcomes = [message.outcome for message in shared_gate.stored(car)]
    assert outcomes[0] == ACCEPTED
    assert outcomes[-1] == HELD


def test_a_clock_that_drifts_steadily(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """Within 5 s nothing is said, up to a minute the rows say so, beyond it the car is told to set its clock; after
    that it goes on under the next number."""
    told_of = []
    for seq, ahead_s in enumerate((2, 20, 50, 70, 0)):
        told_of.append(told(session.ask(car.sign(1, seq, sent_at=now_ms() + ahead_s * 1000)))[1])
    assert told_of == [None, None, None, "clock_ahead", None]
    assert [message.flags & CLOCK_SKEW for message in shared_gate.stored(car)] == [0, CLOCK_SKEW, CLOCK_SKEW, 0]
    assert shared_gate.stored(car)[-1].outcome == ACCEPTED, "a clock scores nobody"


def test_a_clock_that_steps(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """To 1970 (a battery was changed), to eight days ago, to ten years ahead, and back."""
    year_ms = 365 * 86_400_000
    times = (now_ms(), 0, 86_400_000, now_ms() - 8 * 86_400_000, now_ms() + 10 * year_ms, now_ms())
    told_of = [told(session.ask(car.sign(1, seq, sent_at=at)))[1] for seq, at in enumerate(times)]
    assert told_of == [None, "too_old", "too_old", "too_old", "clock_ahead", None]
    assert [message.outcome for message in shared_gate.stored(car)] == [ACCEPTED, ACCEPTED]
