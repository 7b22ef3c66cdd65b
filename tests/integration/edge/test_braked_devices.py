"""A device that goes on with what is refused, before a real edge: it waits, nobody else does."""

from __future__ import annotations

import mqtt5
from tests.gate import NewGate, until
from tests.http_peer import HttpPeer
from tests.mqtt_peer import MqttPeer, told

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
