"""A device that goes on with what is refused, before a real edge: it waits, nobody else does."""

from __future__ import annotations

import time

import mqtt5
from tests.gate import NewGate, until
from tests.http_peer import HttpPeer
from tests.mqtt_peer import MqttPeer, publish_bytes, told

POLICY = {"refused_at_once": 4, "refused_per_second": 0.25, "watched_score": 1e6, "quarantined_score": 1e6}
FORGED = 5
REFUSED = 'fleetgate_rejections_total{reason="bad_mac",step="3",transport="mqtt"}'
NOT_A_REFUSAL = 'fleetgate_rejections_total{reason="rate_limited",step="0",transport="https"}'


def test_who_goes_on_with_what_is_refused_waits_and_is_told_of_each(new_gate: NewGate) -> None:
    """Its answers come in their order, its good message behind them too; another device's meanwhile; over HTTPS 429."""
    gate = new_gate(policy=POLICY)
    forger, other = gate.home.enrol("forger"), gate.home.enrol("other")
    with MqttPeer(gate, forger) as peer, MqttPeer(gate, other) as bystander:
        peer.hello(keep_alive=1)
        bystander.hello()
        sent = [peer.publish(forger.sign(1, seq, key=bytes(32))) for seq in range(FORGED)]
        sent.append(peer.publish(forger.sign(1, FORGED)))
        until(lambda: gate.metric(REFUSED) >= POLICY["refused_at_once"], "what is free is refused")
        assert told(bystander.ask(other.sign(1, 0))) == (0, None)
        assert gate.metric(REFUSED) < FORGED
        with HttpPeer(gate, forger) as client:
            answer = client.batch(forger.sign(2, 0))
            assert (answer.status, int(answer.headers["retry-after"]) >= 1) == (429, True)
            assert gate.metric(NOT_A_REFUSAL) == 0, "to wait is no further refusal, and scores nobody"
        answers = [peer.packet(mqtt5.PubAckPacket) for _ in sent]
        assert [answer.packet_id for answer in answers] == sent
        assert [told(answer) for answer in answers] == [(0x87, "bad_mac")] * FORGED + [(0, None)]
    assert gate.metric(REFUSED) == FORGED


def test_what_a_braked_device_sent_beside_waits_for_a_limit_that_others_have_used_up(new_gate: NewGate) -> None:
    """So does what somebody sends along with CONNECT: neither is read again, and both are asked all the same."""
    gate = new_gate(policy=POLICY | {"refused_per_second": 1}, limits={"tenant": {"messages": "20/5s"}})
    forger, other, newcomer = (gate.home.enrol(name) for name in ("forger", "other", "newcomer"))
    with MqttPeer(gate, forger) as peer, MqttPeer(gate, other) as bystander, MqttPeer(gate, newcomer) as late:
        peer.hello()
        bystander.hello()
        bad = [publish_bytes(forger.topic, forger.sign(1, seq, key=bytes(32)), packet_id=seq + 1) for seq in range(4)]
        peer.send(b"".join(bad) + publish_bytes(forger.topic, forger.sign(1, 4), packet_id=5))
        for _ in bad:
            assert told(peer.packet(mqtt5.PubAckPacket)) == (0x87, "bad_mac")
        bystander.send(b"".join(publish_bytes(other.topic, other.sign(1, seq), packet_id=seq + 1) for seq in range(40)))
        for _ in range(40):
            bystander.packet(mqtt5.PubAckPacket)
        used_up_s = time.monotonic()
        connect = mqtt5.ConnectPacket("", clean_start=True).write()
        late.send(connect + publish_bytes(newcomer.topic, newcomer.sign(1, 0)))
        assert late.packet(mqtt5.ConnAckPacket).reason_code == 0
        for waiting in (peer, late):
            assert told(waiting.packet(mqtt5.PubAckPacket)) == (0, None)
            assert time.monotonic() - used_up_s > 4
