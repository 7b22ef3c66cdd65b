"""A session over a real intake and spool, without a socket: what is read, what is answered, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mqtt5
import pytest
from mqtt5 import ConnAckReasonCode as Connack
from mqtt5 import DisconnectReasonCode as Code
from mqtt5 import PubAckReasonCode as Puback
from tests.gates import IDENTITY, Doorkeeper, Gate, feed, packets_in, publish, score_of
from tests.units import DEVICE_ID, NOW, TOPIC, sign
from tests.wires import DISCONNECT, PINGREQ, connect, connect_3, filters, packet, varint
from tests.wires import publish as raw_publish

from fleetgate.accept.mqtt import RECEIVE_MAXIMUM, Phase, Session
from fleetgate.accept.packets import MAX_PACKET_BYTES
from fleetgate.config import DeviceLimit, Limit, Limits
from fleetgate.judge import Reason

FORGED = sign(key=b"\x00" * 32)


def device_limit(messages: str) -> Limits:
    return Limits(device=DeviceLimit(messages=messages))


def answers(session: Session) -> list[Any]:
    return packets_in(b"".join(session.acks))


class TestConnect:
    """Who is let in, and what CONNACK says."""

    def test_connack_tells_the_time_the_epoch_and_the_limits(self, gate: Gate) -> None:
        """A vehicle sets its clock and its epoch by the two user properties."""
        gate.known().device.epoch = 41
        session = gate.session()
        feed(session, gate.clock, connect())
        (answer,) = packets_in(bytes(session.out))
        assert (answer.reason_code, dict(answer.user_properties)) == (
            Connack.SUCCESS,
            {"now": str(NOW), "epoch": "41"},
        )
        assert (answer.receive_max, answer.max_packet_size, answer.max_qos, answer.topic_alias_max) == (
            RECEIVE_MAXIMUM, MAX_PACKET_BYTES, mqtt5.QoS.AT_LEAST_ONCE, 0,
        )  # fmt: skip
        assert (answer.session_expiry_interval, answer.session_present) == (0, False)

    @pytest.mark.parametrize(("client_id", "assigned"), [(DEVICE_ID, None), ("", DEVICE_ID)])
    def test_the_client_id_is_the_device_id_or_empty(self, gate: Gate, client_id: str, assigned: str | None) -> None:
        """An empty one is given the device's."""
        session = gate.session()
        feed(session, gate.clock, connect(client_id=client_id.encode()))
        (answer,) = packets_in(bytes(session.out))
        assert (answer.reason_code, answer.assigned_client_id) == (Connack.SUCCESS, assigned)

    @pytest.mark.parametrize("asked", [0, 10, 65_535])
    def test_the_keep_alive_is_at_most_the_gates(self, gate: Gate, asked: int) -> None:
        """No car may ask to be remembered for longer, or for ever."""
        session = gate.session()
        feed(session, gate.clock, mqtt5.ConnectPacket(DEVICE_ID, keep_alive=asked).write())
        (answer,) = packets_in(bytes(session.out))
        assert answer.server_keep_alive == session.keep_alive_s == (10 if asked == 10 else 300)

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (connect(client_id=b"tcu-0002"), Connack.CLIENT_ID_NOT_VALID),
            (connect(client_id=DEVICE_ID.upper().encode()), Connack.CLIENT_ID_NOT_VALID),
            (connect(flags=0x06, rest=b"\x00\x00\x01t\x00\x01p"), Connack.NOT_AUTHORIZED),
            (connect(properties=b"\x15\x00\x05SCRAM"), Connack.BAD_AUTHENTICATION_METHOD),
            (connect(level=6), Connack.UNSUPPORTED_PROTOCOL_VERSION),
        ],
        ids=["another's client id", "the client id in capitals", "a will", "another authentication", "version 6"],
    )
    def test_a_connect_is_refused_with_its_code(self, gate: Gate, data: bytes, code: Connack) -> None:
        """And the connection ends once that is sent."""
        session = gate.session()
        feed(session, gate.clock, data)
        (answer,) = packets_in(bytes(session.out))
        assert (answer.reason_code, session.phase) == (code, Phase.ENDED)

    @pytest.mark.parametrize("data", [connect_3(), connect_3(3, b"MQIsdp")], ids=["3.1.1", "3.1"])
    def test_mqtt_3_gets_the_connack_of_its_own_version(self, gate: Gate, data: bytes) -> None:
        """Return code 1, unacceptable protocol version, in four bytes that such a client can read."""
        session = gate.session()
        feed(session, gate.clock, data)
        assert (bytes(session.out), session.phase) == (b"\x20\x02\x00\x01", Phase.ENDED)

    def test_a_certificate_outside_the_profile_is_refused(self, gate: Gate) -> None:
        """With the sentence that says what is wrong with it."""
        session = gate.session(identity=None, profile_error="no SPIFFE name")
        feed(session, gate.clock, connect())
        (answer,) = packets_in(bytes(session.out))
        assert (answer.reason_code, answer.reason_str) == (Connack.NOT_AUTHORIZED, "certificate: no SPIFFE name")

    @pytest.mark.parametrize(
        ("refusal", "code"),
        [
            (Reason.UNKNOWN_DEVICE, Connack.NOT_AUTHORIZED),
            (Reason.SUSPENDED, Connack.NOT_AUTHORIZED),
            (Reason.REVOKED, Connack.NOT_AUTHORIZED),
            (Reason.BANNED, Connack.BANNED),
            (None, Connack.SERVER_UNAVAILABLE),
        ],
    )
    def test_what_the_records_refuse_is_told_in_connack(
        self, gate: Gate, refusal: Reason | None, code: Connack
    ) -> None:
        """A device that is kept out stops; one that nobody can judge now comes back."""
        session = gate.session()
        session.phase = Phase.IDENTIFYING
        session.turn_away(refusal)
        (answer,) = packets_in(bytes(session.out))
        assert (answer.reason_code, session.phase) == (code, Phase.ENDED)

    @pytest.mark.parametrize(
        "data",
        [publish(sign()), PINGREQ, DISCONNECT, filters(0x82, b"a"), b"\x00\x00", b"\xf0\x00", b"GET / HTTP/1.1\r\n",
         b"\x16\x03\x01\x02\x00"],
    )  # fmt: skip
    def test_what_does_not_begin_with_connect_ends_without_an_answer(self, gate: Gate, data: bytes) -> None:
        """Before CONNECT nobody is told anything."""
        session = gate.session()
        feed(session, gate.clock, data + bytes(200))
        assert (bytes(session.out), session.farewell, session.phase) == (b"", b"", Phase.ENDED)

    def test_a_second_connect_is_a_protocol_error(self, gate: Gate) -> None:
        """A session begins once (3.1)."""
        session = gate.live()
        feed(session, gate.clock, connect())
        assert packets_in(session.farewell)[0].reason_code == Code.PROTOCOL_ERROR

    def test_a_new_session_takes_over_the_devices_old_one(self, gate: Gate) -> None:
        """By the verified identity; the old connection is told why it ends."""
        old, new = gate.live(), gate.live()
        assert (old.phase, packets_in(old.farewell)[0].reason_code) == (Phase.ENDED, Code.SESSION_TAKEN_OVER)
        assert gate.known().session is new

    def test_what_came_with_connect_is_read_once_the_registry_has_answered(self, gate: Gate) -> None:
        """A client need not wait for CONNACK (3.1.4): its first PUBLISH is not left lying."""
        door = Doorkeeper(gate, waits=True)
        session = gate.session(door=door)
        feed(session, gate.clock, connect() + publish(sign(), 7))
        door.answer(session)
        assert [answer.packet_id for answer in answers(session)] == [7]

    def test_what_came_with_connect_is_read_at_once_when_the_device_is_known(self, gate: Gate) -> None:
        """And once only."""
        session = gate.session()
        feed(session, gate.clock, connect() + publish(sign(), 7) + publish(sign(seq=1), 8))
        assert [answer.packet_id for answer in answers(session)] == [7, 8]


class TestPublish:
    """From a PUBLISH to its answer."""

    @pytest.mark.parametrize("step", [1, 2, 7, 10_000], ids=["byte by byte", "in twos", "in sevens", "whole"])
    def test_the_answers_do_not_depend_on_how_the_bytes_arrive(self, gate: Gate, step: int) -> None:
        """CONNECT, messages and a ping, cut anywhere."""
        session = gate.session()
        data = connect() + publish(sign(), 1) + PINGREQ + publish(FORGED, 2) + publish(sign(seq=1), 3) + PINGREQ
        for start in range(0, len(data), step):
            feed(session, gate.clock, data[start : start + step])
        connack, *pongs = packets_in(bytes(session.out))
        assert (connack.reason_code, len(pongs)) == (Connack.SUCCESS, 2)
        assert [(answer.packet_id, answer.reason_code) for answer in answers(session)] == [
            (1, Puback.SUCCESS),
            (2, Puback.NOT_AUTHORIZED),
            (3, Puback.SUCCESS),
        ]

    def test_pubacks_stand_in_the_order_of_receipt(self, gate: Gate) -> None:
        """Accepted, duplicate and refused ones alike [MQTT-4.6.0-2]."""
        session = gate.live()
        sent = [publish(raw, number) for number, raw in ((9, sign()), (3, FORGED), (5, sign()), (1, sign(seq=1)))]
        feed(session, gate.clock, b"".join(sent))
        assert [answer.packet_id for answer in answers(session)] == [9, 3, 5, 1]

    def test_no_answer_is_among_what_is_sent_before_the_commit(self, gate: Gate) -> None:
        """Not even a duplicate's or a refusal's: all wait in `acks`."""
        session = gate.live()
        for number, raw in enumerate((sign(), sign(), FORGED), 1):
            feed(session, gate.clock, publish(raw, number))
        assert (bytes(session.out), len(session.acks)) == (b"", 3)

    def test_a_message_is_in_the_spool_when_its_commit_has_returned(self, gate: Gate) -> None:
        """The bytes as received, with the peer of the session."""
        session = gate.live()
        feed(session, gate.clock, publish(sign()))
        gate.intake.commit()
        assert sign() in (gate.spool.directory / "segments" / f"{1:020d}.open").read_bytes()

    def test_the_answers_say_what_the_table_says(self, gate: Gate) -> None:
        """Reason String and code of a refusal, `duplicate` of a duplicate, nothing of an acceptance."""
        session = gate.live()
        feed(session, gate.clock, publish(sign(), 1) + publish(sign(), 2) + publish(FORGED, 3))
        assert [(answer.reason_code, answer.reason_str) for answer in answers(session)] == [
            (Puback.SUCCESS, None),
            (Puback.SUCCESS, "duplicate"),
            (Puback.NOT_AUTHORIZED, "bad_mac"),
        ]

    def test_a_held_message_looks_accepted(self, gate: Gate) -> None:
        """A quarantined device is not told."""
        session = gate.live()
        gate.known().device.held = True
        feed(session, gate.clock, publish(sign(), 1))
        assert b"".join(session.acks) == mqtt5.PubAckPacket(1).write()

    def test_a_stale_epoch_is_answered_with_the_current_one(self, gate: Gate) -> None:
        """So that the device can go on above it."""
        session = gate.live()
        feed(session, gate.clock, publish(sign(epoch=12), 1) + publish(sign(epoch=3), 2))
        assert answers(session)[1].user_properties == [("current_epoch", "12")]

    def test_without_problem_information_only_codes_are_told(self, gate: Gate) -> None:
        """A client that asked for none gets none (3.1.2.11.7)."""
        session = gate.live(request_problem_info=False)
        feed(session, gate.clock, publish(sign(), 1) + publish(sign(), 2) + publish(FORGED, 3))
        told = [(answer.reason_str, answer.user_properties) for answer in answers(session)]
        assert told == [(None, [])] * 3

    def test_qos_0_is_stored_and_never_answered(self, gate: Gate) -> None:
        """Accepted, duplicate or refused."""
        session = gate.live()
        for raw in (sign(), sign(), FORGED):
            feed(session, gate.clock, publish(raw, qos=0))
        assert (session.acks, gate.counts.events) == ([], 1)

    def test_another_topic_is_refused_and_the_session_goes_on(self, gate: Gate) -> None:
        """One bad message costs itself; a topic that is not even text never reaches the codec."""
        session = gate.live()
        topics = [TOPIC.replace(b"acme", b"rival"), b"\xff\xfe", b"$SYS", TOPIC]
        sent = [raw_publish(topic=topic, packet_id=n, payload=sign()) for n, topic in enumerate(topics, 1)]
        feed(session, gate.clock, b"".join(sent))
        assert [answer.reason_str for answer in answers(session)] == ["identity_mismatch"] * 3 + [None]

    def test_dup_and_retain_change_nothing(self, gate: Gate) -> None:
        """A retry is known by its tag; retain is ignored."""
        session = gate.live()
        feed(session, gate.clock, raw_publish(first=0x3B, payload=sign()) + raw_publish(first=0x3B, payload=sign()))
        assert [answer.reason_str for answer in answers(session)] == [None, "duplicate"]

    def test_128_messages_may_wait_for_their_answer(self, gate: Gate) -> None:
        """The receive maximum that CONNACK gave; one more ends the session, and those before it stay acknowledged."""
        session = gate.live()
        sent = [publish(sign(seq=n), n + 1) for n in range(RECEIVE_MAXIMUM + 1)]
        feed(session, gate.clock, b"".join(sent[:-1]))
        before = session.phase
        feed(session, gate.clock, sent[-1])
        assert (before, session.phase) == (Phase.LIVE, Phase.ENDED)
        assert packets_in(session.farewell)[0].reason_code == Code.RECEIVE_MAX_EXCEEDED
        assert len(session.acks) == RECEIVE_MAXIMUM

    def test_qos_0_is_not_counted_against_the_receive_maximum(self, gate: Gate) -> None:
        """It waits for no answer."""
        session = gate.live()
        sent = [publish(sign(seq=n), n + 1) for n in range(RECEIVE_MAXIMUM)]
        feed(session, gate.clock, b"".join([*sent, publish(sign(seq=RECEIVE_MAXIMUM), qos=0)]))
        assert (session.phase, gate.counts.events) == (Phase.LIVE, RECEIVE_MAXIMUM + 1)

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"\x32" + varint(MAX_PACKET_BYTES), Code.PACKET_TOO_LARGE),
            (raw_publish(first=0x34), Code.QOS_NOT_SUPPORTED),
            (raw_publish(packet_id=0), Code.MALFORMED_PACKET),
            (raw_publish(properties=b"\x23\x00\x01"), Code.TOPIC_ALIAS_INVALID),
            (raw_publish(properties=b"\x03\x00\x01\xff"), Code.MALFORMED_PACKET),
            (b"\x40\x02\x00\x01", Code.PROTOCOL_ERROR),
            (b"\xd0\x00", Code.PROTOCOL_ERROR),
            (b"\xc1\x00", Code.PROTOCOL_ERROR),
            (packet(0xC0, b"\x00"), Code.PROTOCOL_ERROR),
            (b"\xf0\x00", Code.PROTOCOL_ERROR),
            (b"\x00\x00", Code.PROTOCOL_ERROR),
            (filters(0x82, b"\xff"), Code.MALFORMED_PACKET),
        ],
        ids=["announced too large", "QoS 2", "packet id 0", "topic alias", "not UTF-8", "PUBACK", "PINGRESP",
             "PINGREQ with flags", "PINGREQ with content", "AUTH", "packet type 0", "a filter not UTF-8"],
    )  # fmt: skip
    def test_a_broken_protocol_ends_the_session_with_its_code(self, gate: Gate, data: bytes, code: Code) -> None:
        """In a DISCONNECT behind the answers that are still due."""
        session = gate.live()
        feed(session, gate.clock, publish(sign(), 1) + data)
        assert (session.phase, packets_in(session.farewell)[0].reason_code) == (Phase.ENDED, code)
        assert [answer.packet_id for answer in answers(session)] == [1]

    def test_an_oversized_packet_counts_against_its_sender(self, gate: Gate) -> None:
        """By the length it announces, before any of it is waited for."""
        session = gate.live()
        feed(session, gate.clock, b"\x32" + varint(MAX_PACKET_BYTES))
        assert gate.counts.reasons["mqtt"][Reason.OVERSIZED] == 1

    def test_nothing_is_read_after_the_end(self, gate: Gate) -> None:
        """Neither in the same read nor in a later one."""
        session = gate.live()
        feed(session, gate.clock, DISCONNECT + publish(sign(), 1))
        feed(session, gate.clock, publish(sign(), 2))
        assert (session.acks, gate.counts.events, session.farewell) == ([], 0, b"")


class TestTheRest:
    """Pings, subscriptions, rates and silences."""

    def test_subscribe_is_not_authorized(self, gate: Gate) -> None:
        """Every filter of it; commands to vehicles cannot travel on this listener."""
        session = gate.live()
        feed(session, gate.clock, filters(0x82, b"#", TOPIC, b"fleet/v1/rival/#", packet_id=77))
        (answer,) = packets_in(bytes(session.out))
        assert (answer.packet_id, answer.reason_codes) == (77, [mqtt5.SubAckReasonCode.NOT_AUTHORIZED] * 3)

    def test_unsubscribe_finds_no_subscription(self, gate: Gate) -> None:
        """It is answered, and the session goes on."""
        session = gate.live()
        feed(session, gate.clock, filters(0xA2, b"a", b"b", options=b"", packet_id=5))
        (answer,) = packets_in(bytes(session.out))
        assert answer.reason_codes == [mqtt5.UnsubAckReasonCode.NO_SUBSCRIPTION_EXISTED] * 2

    def test_a_subscribe_of_many_thousand_filters_is_answered(self, gate: Gate) -> None:
        """The largest packet gets an answer too, and nothing breaks."""
        session = gate.live()
        feed(session, gate.clock, filters(0x82, *[b"a"] * 16_000))
        assert len(session.out) > 16_000

    def test_over_its_rate_a_device_is_told_to_send_later(self, tmp_path: Any) -> None:
        """0x97 for the same bytes later; they are accepted then, and it is a sign of little weight."""
        gate = Gate(tmp_path / "limited", limits=device_limit("2/2s"))
        session = gate.live()
        feed(session, gate.clock, b"".join(publish(sign(seq=n), n + 1) for n in range(3)))
        gate.clock.ms += 1_500
        feed(session, gate.clock, publish(sign(seq=2), 4))
        codes = [answer.reason_code for answer in answers(session)]
        assert codes == [Puback.SUCCESS, Puback.SUCCESS, Puback.QUOTA_EXCEEDED, Puback.SUCCESS]
        assert 0 < score_of(gate, gate.known()) <= 1
        gate.close()

    def test_what_is_dear_to_read_counts_by_its_bytes_and_over_the_rate_is_not_read(self, tmp_path: Any) -> None:
        """12,000 user properties around an empty payload take 60 messages' worth; the next are refused, right or
        wrong, by their packet id alone."""
        gate = Gate(tmp_path / "limited", limits=device_limit("20/20s"))
        session = gate.live()
        pairs = b"\x26\x00\x00\x00\x00" * 12_000
        for packet_id, properties in enumerate((pairs, pairs, b"\xff" * 60_000), start=1):
            feed(session, gate.clock, raw_publish(packet_id=packet_id, properties=properties, payload=b""))
        feed(session, gate.clock, publish(sign(), 4))
        codes = [(answer.packet_id, answer.reason_code) for answer in answers(session)[1:]]
        assert codes == [(packet_id, Puback.QUOTA_EXCEEDED) for packet_id in (2, 3, 4)]
        gate.close()

    def test_a_publish_over_the_rate_without_a_packet_id_ends_the_session(self, tmp_path: Any) -> None:
        """There is nothing to answer it with."""
        gate = Gate(tmp_path / "limited", limits=device_limit("1/10s"))
        for wrong in (
            packet(0x32, b""),
            packet(0x32, b"\xff\xff\x00\x01"),
            raw_publish(packet_id=0),
            packet(0x34, b""),
        ):
            session = gate.live()
            feed(session, gate.clock, publish(sign(), 1) + wrong)
            assert session.phase is Phase.ENDED
            assert packets_in(session.farewell)[0].reason_code == Code.MALFORMED_PACKET
        gate.close()

    def test_subscribing_over_the_rate_ends_the_session(self, tmp_path: Any) -> None:
        """Each filter is read and answered, so they count by their bytes; pings and the end are answered as ever."""
        gate = Gate(tmp_path / "limited", limits=device_limit("20/20s"))
        session, subscribe = gate.live(), filters(0x82, *[b"a"] * 16_000)
        feed(session, gate.clock, subscribe + PINGREQ)
        assert [type(answer) for answer in packets_in(bytes(session.out))] == [mqtt5.SubAckPacket, mqtt5.PingRespPacket]
        feed(session, gate.clock, subscribe)
        (farewell,) = packets_in(session.farewell)
        assert farewell.reason_code == Code.MESSAGE_RATE_TOO_HIGH
        gate.close()

    def test_a_silent_client_is_overdue_after_one_and_a_half_keep_alives(self, gate: Gate) -> None:
        """Counted from its last packet, whichever that was."""
        session = gate.live(keep_alive=10)
        feed(session, gate.clock, PINGREQ)
        now_s = gate.clock.monotonic()
        assert (session.overdue(now_s + 15), session.overdue(now_s + 15.1)) == (False, True)

    def test_bytes_that_make_no_packet_are_no_sign_of_life(self, gate: Gate) -> None:
        """A client that drips half a packet is silent."""
        session = gate.live(keep_alive=10)
        gate.clock.ms += 20_000
        feed(session, gate.clock, b"\x32\xff")
        assert session.overdue(gate.clock.monotonic())

    def test_a_session_is_ended_from_our_side_once(self, gate: Gate) -> None:
        """With the first reason there was."""
        session = gate.live()
        session.end(Code.NOT_AUTHORIZED, "revoked")
        session.end(Code.SERVER_SHUTTING_DOWN, "later")
        (goodbye,) = packets_in(session.farewell)
        assert (goodbye.reason_code, goodbye.reason_str) == (Code.NOT_AUTHORIZED, "revoked")

    def test_a_session_that_never_began_ends_without_a_word(self, gate: Gate) -> None:
        """DISCONNECT may only follow a successful CONNACK (3.14)."""
        session = gate.session()
        session.end(Code.SERVER_SHUTTING_DOWN, "down")
        assert (session.farewell, session.phase) == (b"", Phase.ENDED)

    def test_a_look_up_that_comes_back_too_late_begins_nothing(self, gate: Gate) -> None:
        """The client left while the registry was asked."""
        session = gate.session()
        session.phase = Phase.ENDED
        session.welcome(gate.caller(), NOW)
        session.turn_away(Reason.REVOKED)
        assert (bytes(session.out), session.caller) == (b"", None)

    @pytest.mark.parametrize("waits", [False, True])
    def test_what_came_with_connect_is_charged_once_whoever_waits_for_whom(self, tmp_path: Path, waits: bool) -> None:
        """Its bytes as its messages, to the tenant's limit; where that is used up it is not judged before it is."""
        gate = Gate(tmp_path, limits=Limits(tenant=Limit(messages="1000/day", bytes="100000/day")))
        session = gate.session(door=Doorkeeper(gate, waits=True))
        sent = publish(sign(seq=0)) + publish(sign(seq=1), packet_id=2)
        feed(session, gate.clock, connect() + sent)
        caller = gate.caller()
        session.welcome(caller, NOW, waits=waits)
        assert (session.slowed, len(session.acks)) == (waits, 0 if waits else 2)
        feed(session, gate.clock, b"")
        [account] = gate.intake.senders(caller)
        left = [round(bucket.left) for bucket in account._sent]
        assert (session.slowed, len(session.acks), left) == (False, 2, [998, 100_000 - len(sent)])
        gate.close()


def test_the_identity_of_the_tests_is_the_units() -> None:
    """The certificate identity, the records and the signing key speak of one device."""
    assert (IDENTITY.tenant.encode() in TOPIC, IDENTITY.device_id.encode() in TOPIC) == (True, True)
