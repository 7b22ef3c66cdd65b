"""A lane without its socket: answers in pieces, in bulk, refusing, out of order."""

from __future__ import annotations

import random
import ssl
import struct

import msgspec
import pytest
from tests.unit.fleetsim.bench import BUNDLE

from fleetsim.attackers.wire import text, varint
from fleetsim.swarm_https import HttpsLane
from fleetsim.swarm_lane import Lane
from fleetsim.swarm_mqtt import MqttLane
from fleetsim.swarm_tally import Tally
from fleetsim.swarm_wire import LaneError, Phase
from fleetsim.swarm_work import Shape, Work, bodies, repeated

CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def work() -> Work:
    return Work(BUNDLE, 1, repeated(bodies(Shape(), random.Random(1))), 1, lambda: 1_767_225_600_000.0)


def mqtt(in_flight: int = 0) -> MqttLane:
    """A live lane with packets 1 to `in_flight` in flight."""
    lane = MqttLane(CONTEXT, work(), Tally())
    lane.phase = Phase.LIVE
    lane.flying.extend([0.0] * len(lane.frames(in_flight)))
    return lane


def puback(packet_id: int, code: int = 0, reason: str = "") -> bytes:
    if not code and not reason:
        return b"\x40\x02" + struct.pack(">H", packet_id)
    properties = b"\x1f" + text(reason)
    body = struct.pack(">HB", packet_id, code) + varint(len(properties)) + properties
    return b"\x40" + varint(len(body)) + body


def response(items: list[dict[str, object]], status: int = 202) -> bytes:
    content = msgspec.msgpack.encode(items)
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content


def item(status: str = "accepted", reason: str | None = None) -> dict[str, object]:
    return {"epoch": 1, "seq": 0, "status": status, "reason": reason}


def feed(lane: Lane, data: bytes, size: int) -> int:
    return sum(lane.take(data[at : at + size]) for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 3, 4, 1000])
def test_answers_count_however_they_are_cut(size: int) -> None:
    """Plain and refusing PUBACKs are told apart whole, byte by byte and in between."""
    lane = mqtt(4)
    answers = puback(1) + puback(2, 0x87, "bad_mac") + puback(3) + puback(4, 0, "duplicate")
    assert feed(lane, answers, size) == 4
    assert lane.tally.answers() == {"accepted": 2, "bad_mac": 1, "duplicate": 1}


def test_packet_ids_go_round_without_zero() -> None:
    """After 65,535 comes 1, in what is sent as in what is awaited."""
    lane = mqtt()
    lane._framed = lane._awaited = 65_535
    frames = lane.frames(2)
    lane.flying.extend([0.0, 0.0])
    ids = [frame[len(frame) - len(raw) - 3 :][:2] for frame, raw in zip(frames, work().sign(2), strict=True)]
    assert ids == [b"\xff\xff", b"\x00\x01"]
    assert lane.take(puback(65_535) + puback(1)) == 2


def test_an_answer_out_of_order_ends_the_lane() -> None:
    """An acknowledgement counts only for the message it names, in the order of sending."""
    with pytest.raises(LaneError, match="answer_to_nothing"):
        mqtt(2).take(puback(2))


def test_an_answer_to_nothing_ends_the_lane() -> None:
    """Nothing is in flight, so nothing can be acknowledged."""
    with pytest.raises(LaneError, match="answer_to_nothing"):
        mqtt().take(puback(1))


def test_a_disconnect_ends_the_lane_under_its_code() -> None:
    """What the gate says at the end is what is counted."""
    with pytest.raises(LaneError, match="disconnect_0x87"):
        mqtt(1).take(b"\xe0\x02\x87\x00")


def test_connack_tells_epoch_and_limits() -> None:
    """The lane goes live above the gate's epoch and keeps the gate's Receive Maximum."""
    lane = mqtt()
    lane.phase = Phase.GREETING
    properties = b"\x21\x00\x80" + b"\x26" + text("epoch") + text("41") + b"\x26" + text("now") + text("1")
    body = b"\x00\x00" + varint(len(properties)) + properties
    lane.take(b"\x20" + varint(len(body)) + body)
    assert (lane.phase, lane.work.epoch, lane.receive_maximum) == (Phase.LIVE, 42, 128)


def test_a_refusing_connack_ends_the_lane_under_its_code() -> None:
    """A device that the gate does not let in is counted, not retried."""
    lane = mqtt()
    lane.phase = Phase.GREETING
    with pytest.raises(LaneError, match="connack_0x87"):
        lane.take(b"\x20\x03\x00\x87\x00")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_each_item_of_a_response_counts(size: int) -> None:
    """A POST is answered once its whole response is there; its items are counted apart."""
    lane = HttpsLane(CONTEXT, work(), Tally(), 3)
    lane.flying.append(0.0)
    assert feed(lane, response([item(), item("rejected", "bad_mac"), item("duplicate")]), size) == 1
    assert lane.tally.answers() == {"accepted": 1, "bad_mac": 1, "duplicate": 1}


def test_a_response_with_other_items_than_were_sent_ends_the_lane() -> None:
    """A gate that answers two of three leaves open which."""
    lane = HttpsLane(CONTEXT, work(), Tally(), 3)
    lane.flying.append(0.0)
    with pytest.raises(LaneError, match="wrong_number_of_items"):
        lane.take(response([item(), item()]))


def test_a_request_that_is_refused_whole_counts_every_item() -> None:
    """429 and 503 answer all envelopes of the request."""
    lane = HttpsLane(CONTEXT, work(), Tally(), 3)
    lane.flying.append(0.0)
    lane.take(response([], 429))
    assert lane.tally.answers() == {"http_429": 3}
