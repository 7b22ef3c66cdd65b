"""Disorder over real connections: what is harmless is not held, what tells of a clone or a replayer is."""

from __future__ import annotations

import time

from tests.gate import Car, Gate, NewGate, now_ms, until
from tests.http_peer import HttpPeer
from tests.http_peer import told as told_item
from tests.mqtt_peer import MqttPeer, told
from tests.units import BODY

ACCEPTED, HELD = 1, 2
OTHER_BODY = BODY.replace(b"2026.44.1", b"2026.44.2")
HOUR_MS = 3_600_000


def held(gate: Gate, car: Car) -> bool:
    return gate.stored(car)[-1].outcome == HELD


def test_a_retry_of_all_that_has_no_answer_is_harmless(shared_gate: Gate, car: Car) -> None:
    """128 messages again and again, each time on a new connection, as over a link that loses the answers."""
    raws = [car.sign(1, seq) for seq in range(128)]
    for _ in range(4):
        with MqttPeer(shared_gate, car).hello() as peer:
            for raw in raws:
                peer.publish(raw)
    with MqttPeer(shared_gate, car).hello() as peer:
        assert told(peer.ask(car.sign(1, 128))) == (0, None)
    assert not held(shared_gate, car)


def test_own_messages_again_after_their_answer_end_in_quarantine(
    shared_gate: Gate, session: MqttPeer, car: Car
) -> None:
    """A replayer is told `duplicate` each time, and not that it is found out."""
    raws = [car.sign(session.epoch, seq) for seq in range(4)]
    assert [told(session.ask(raw)) for raw in raws] == [(0, None)] * 4
    before = shared_gate.metric('fleetgate_disorder_total{class="replay"}')
    assert {told(session.ask(raw)) for raw in raws * 6} == {(0, "duplicate")}
    assert shared_gate.metric('fleetgate_disorder_total{class="replay"}') == before + 24
    session.ask(car.sign(session.epoch, 4))
    assert held(shared_gate, car)


def test_a_device_that_lost_its_counter_recovers_by_what_it_is_told(
    shared_gate: Gate, client: HttpPeer, car: Car
) -> None:
    """A whole batch of used numbers is one episode: it goes on above the epoch that the answer names, unsuspected."""
    assert {item["status"] for item in client.batch(*(car.sign(1, seq) for seq in range(40))).items} == {"accepted"}
    lost = client.batch(*(car.sign(1, seq, body=OTHER_BODY) for seq in range(60))).items
    assert [item["reason"] for item in lost] == ["equivocation"] * 40 + [None] * 20
    assert {item.get("current_epoch") for item in lost[:40]} == {1}
    again = client.batch(*(car.sign(2, seq, body=OTHER_BODY) for seq in range(40))).items
    assert {item["status"] for item in again} == {"accepted"}
    assert not held(shared_gate, car)
    rejected = [record for segment in shared_gate.segments() for _, record in segment.rejections
                if segment.peers[record.peer].device_id == car.device_id]  # fmt: skip
    assert {(record.disorder, record.score) for record in rejected} == {("reset", 20.0)}


def test_a_device_that_lost_its_counter_and_the_answers_too_is_not_suspected(shared_gate: Gate, car: Car) -> None:
    """It asks with the same bytes again, and what it has made since, until it hears which epoch to go on above."""
    lost = [car.sign(1, seq, body=OTHER_BODY) for seq in range(12)]
    with HttpPeer(shared_gate, car) as before:
        before.batch(*(car.sign(1, seq) for seq in range(9)))
    for count in (3, 5):
        with HttpPeer(shared_gate, car) as cut:
            assert cut.batch(*lost[:count]).items[0]["reason"] == "equivocation"
    with HttpPeer(shared_gate, car) as heard:
        assert {item.get("current_epoch") for item in heard.batch(*lost[:9]).items} == {1}
        assert told_item(heard.ask(car.sign(2, 0, body=OTHER_BODY))) == ("accepted", None)
    assert not held(shared_gate, car)


def test_two_processes_of_one_device_end_in_quarantine(shared_gate: Gate, car: Car) -> None:
    """Each in its own epoch, by turns, as only a copied credential makes it; no number is used twice."""
    began = now_ms() - HOUR_MS
    states = []
    for turn in range(6):
        epoch = 1 + turn % 2
        with MqttPeer(shared_gate, car).hello() as peer:
            signed = began + turn * HOUR_MS // 10
            assert told(peer.ask(car.sign(epoch, turn, sent_at=signed))) == (0, None)
        states.append(held(shared_gate, car))
    assert (states[:2], states[-1]) == ([False, False], True)


def test_a_session_that_goes_on_after_it_was_taken_over_is_watched(shared_gate: Gate, car: Car) -> None:
    """Two clients that both keep sending; alone it is no reason to hold anything."""
    for turn in range(4):
        with MqttPeer(shared_gate, car).hello() as first, MqttPeer(shared_gate, car).hello() as second:
            assert told(second.ask(car.sign(1, turn))) == (0, None)
            time.sleep(0.7)
            first.publish(car.sign(1, 100))
            time.sleep(0.1)
    until(lambda: shared_gate.moved(car) == ["watched"], "it is scored")


def test_what_breaks_the_protocol_is_watched(shared_gate: Gate, car: Car) -> None:
    """Packets that no client may send, on sessions of its own."""
    for _ in range(20):
        with MqttPeer(shared_gate, car).hello() as peer:
            peer.send(b"\xf0\x00")  # AUTH
            peer.rest()
    assert shared_gate.moved(car) == ["watched"]


def test_policy_quarantines_at_once_while_control_is_away(new_gate: NewGate) -> None:
    """The next message is held, whatever became of the records, and after a kill as well."""
    gate = new_gate()
    car = gate.home.enrol("one")
    with MqttPeer(gate, car).hello() as peer:
        assert told(peer.ask(car.sign(1, 0))) == (0, None)
        database = gate.home.directory / "control.db"
        away = database.rename(database.with_suffix(".away"))
        until(lambda: gate.metric("fleetgate_control_answers") == 0, "control is away")
        for seq in range(3):
            assert told(peer.ask(car.sign(1, seq + 1, key=bytes(32)))) == (0x87, "bad_mac")
        assert told(peer.ask(car.sign(1, 1))) == (0, None)
    assert [message.outcome for message in gate.stored(car)] == [ACCEPTED, HELD]
    gate.kill()
    away.rename(database)
    gate.start()
    with HttpPeer(gate, car) as again:
        assert told_item(again.ask(car.sign(1, 2))) == ("accepted", None)
    assert held(gate, car)
