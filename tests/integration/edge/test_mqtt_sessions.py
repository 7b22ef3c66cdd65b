"""The life of an MQTT session at the real listener: how it begins, what it may do, how each end of it ends it."""

from __future__ import annotations

import mqtt5
import pytest
from tests.gate import Car, Gate, until
from tests.mqtt_peer import MqttPeer, publish_bytes, told

RECEIVE_MAXIMUM = 128


def test_an_older_client_gets_the_refusal_of_its_own_version(shared_gate: Gate, car: Car) -> None:
    """MQTT 3.1.1: CONNACK with return code 1, then the end."""
    with MqttPeer(shared_gate, car) as peer:
        peer.send(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a")
        answer = b""
        while data := peer.sock.recv(100):
            answer += data
        assert answer == b"\x20\x02\x00\x01"


def test_the_welcome_tells_limits_time_and_epoch(shared_gate: Gate, car: Car) -> None:
    """What a vehicle needs before its first message stands in CONNACK."""
    with MqttPeer(shared_gate, car) as peer:
        welcome = peer.greet(keep_alive=20)
        facts = (welcome.receive_max, welcome.max_packet_size, welcome.max_qos, welcome.topic_alias_max)
        assert facts == (RECEIVE_MAXIMUM, 68 * 1024, 1, 0)
        assert (welcome.session_expiry_interval, welcome.assigned_client_id) == (0, car.device_id)
        assert dict(welcome.user_properties).keys() == {"now", "epoch"}


def test_the_epoch_of_the_welcome_follows_the_device_over_sessions(shared_gate: Gate, car: Car) -> None:
    """The highest epoch seen is told at the next CONNECT."""
    with MqttPeer(shared_gate, car) as peer:
        peer.hello().ask(car.sign(41, 0))
    with MqttPeer(shared_gate, car) as peer:
        assert peer.hello().epoch == 42


def test_another_cars_client_id_is_refused_and_evicts_nobody(
    shared_gate: Gate, car: Car, other_car: Car, bystander: MqttPeer
) -> None:
    """CONNACK 0x85; the other's session goes on."""
    with MqttPeer(shared_gate, car) as peer:
        assert peer.greet(other_car.device_id).reason_code == 0x85
    assert told(bystander.ask(other_car.sign(1, 0))) == (0, None)


def test_a_will_is_refused(shared_gate: Gate, car: Car) -> None:
    """This listener is for telemetry only, so nothing is published on a vehicle's behalf."""
    with MqttPeer(shared_gate, car) as peer:
        assert peer.greet(will=mqtt5.Will(topic="some/topic", payload=b"gone")).reason_code == 0x87


def test_subscribe_is_refused_and_the_session_lives_on(session: MqttPeer, car: Car) -> None:
    """Not authorized for each filter; commands travel elsewhere."""
    session.send(mqtt5.SubscribePacket(9, [mqtt5.TopicFilter("#"), mqtt5.TopicFilter(car.topic)]).write())
    refused = session.packet(mqtt5.SubAckPacket)
    assert refused.reason_codes == [mqtt5.SubAckReasonCode.NOT_AUTHORIZED] * 2
    assert told(session.ask(car.sign(1, 0))) == (0, None)


def test_the_same_device_takes_its_session_over(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """The old session ends with 0x8E, the new one works."""
    with MqttPeer(shared_gate, car) as newer:
        newer.hello()
        assert session.farewell().reason_code == 0x8E
        assert told(newer.ask(car.sign(1, 0))) == (0, None)


def test_a_silent_session_ends_after_one_and_a_half_keep_alives(shared_gate: Gate, car: Car) -> None:
    """DISCONNECT 0x8D."""
    with MqttPeer(shared_gate, car) as peer:
        peer.hello(keep_alive=1)
        assert peer.farewell().reason_code == 0x8D


def test_a_ping_is_answered(session: MqttPeer) -> None:
    """PINGRESP."""
    session.send(mqtt5.PingReqPacket().write())
    session.packet(mqtt5.PingRespPacket)


def test_the_client_may_leave(session: MqttPeer, car: Car) -> None:
    """What came before DISCONNECT is acknowledged; then the gate closes without a word."""
    session.send(publish_bytes(car.topic, car.sign(1, 0)) + mqtt5.DisconnectPacket().write())
    [ack] = session.rest()
    assert isinstance(ack, mqtt5.PubAckPacket)


def test_more_than_the_receive_maximum_in_flight_ends_the_session(session: MqttPeer, car: Car) -> None:
    """129 messages within one TLS record: 128 answers, then DISCONNECT 0x93. They are too old, which slows nobody."""
    old = car.sign(1, 0, body=b"x", sent_at=1)
    session.send(b"".join(publish_bytes(car.topic, old, packet_id=n + 1) for n in range(RECEIVE_MAXIMUM + 1)))
    *acks, farewell = session.rest()
    assert isinstance(farewell, mqtt5.DisconnectPacket)
    assert (len(acks), farewell.reason_code) == (RECEIVE_MAXIMUM, 0x93)


def test_qos_0_is_stored_and_not_acknowledged(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """The next acknowledgement is that of the next QoS 1 message."""
    session.publish(car.sign(1, 0), qos=0)
    session.ask(car.sign(1, 1))
    assert len(shared_gate.stored(car)) == 2


def test_qos_2_ends_the_session(session: MqttPeer, car: Car) -> None:
    """CONNACK said at most 1; DISCONNECT 0x9B."""
    session.send(publish_bytes(car.topic, b"x", qos=2))
    assert session.farewell().reason_code == 0x9B


def test_packets_may_come_byte_by_byte(shared_gate: Gate, car: Car) -> None:
    """Each byte in a TLS record of its own."""
    with MqttPeer(shared_gate, car) as peer:
        connect = mqtt5.ConnectPacket("", clean_start=True).write()
        for byte in connect + publish_bytes(car.topic, car.sign(1, 0)):
            peer.send(bytes((byte,)))
        assert peer.packet(mqtt5.ConnAckPacket).reason_code == 0
        assert told(peer.packet(mqtt5.PubAckPacket)) == (0, None)


def test_messages_behind_connect_in_the_same_write_are_taken(shared_gate: Gate, car: Car) -> None:
    """A client need not wait for CONNACK (3.1.4), also where the device must be looked up first."""
    with MqttPeer(shared_gate, car) as peer:
        packets = [publish_bytes(car.topic, car.sign(1, seq), packet_id=seq + 1) for seq in range(3)]
        peer.send(mqtt5.ConnectPacket("", clean_start=True).write() + b"".join(packets))
        peer.packet(mqtt5.ConnAckPacket)
        assert [told(peer.packet(mqtt5.PubAckPacket)) for _ in packets] == [(0, None)] * 3


def test_a_thousand_pipelined_messages_are_acknowledged_in_order(
    shared_gate: Gate, session: MqttPeer, car: Car
) -> None:
    """With always 128 in flight, PUBACKs come in the order of receipt and each message is stored once."""
    raws = [car.sign(1, seq) for seq in range(1000)]
    acks: list[int] = []
    sent = 0
    while len(acks) < len(raws):
        room = min(RECEIVE_MAXIMUM - (sent - len(acks)), len(raws) - sent)
        session.send(b"".join(publish_bytes(car.topic, raws[n], packet_id=n + 1) for n in range(sent, sent + room)))
        sent += room
        acks.append(session.packet(mqtt5.PubAckPacket).packet_id)
    assert acks == list(range(1, 1001))
    assert [message.raw for message in shared_gate.stored(car)] == raws


@pytest.mark.parametrize("code", [0x82, 0x81])
def test_what_is_not_for_this_listener_ends_the_session(session: MqttPeer, code: int) -> None:
    """PUBREL is a protocol error, reserved bits are a malformed packet."""
    session.send({0x82: b"\x62\x02\x00\x01", 0x81: b"\xcf\x00"}[code])
    assert session.farewell().reason_code in (0x81, 0x82)


def test_the_gate_counts_its_open_sessions(shared_gate: Gate, car: Car) -> None:
    """The gauge goes up with a session and down with its end."""
    sample = 'fleetgate_connections{transport="mqtt"}'
    before = shared_gate.metric(sample)
    with MqttPeer(shared_gate, car) as peer:
        peer.hello()
        assert shared_gate.metric(sample) == before + 1
    until(lambda: shared_gate.metric(sample) == before, "the session is gone")
