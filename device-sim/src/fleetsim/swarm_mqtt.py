"""Decides how a lane of the swarm speaks MQTT 5: one QoS 1 PUBLISH for each message, PUBACKs in their order.

An answer counts only for the message whose packet id it names, and in the order of sending: one out of order, or to
nothing, ends the lane. What a refusing PUBACK means is `answers`'.
"""

import struct
import time

from fleetsim.answers import from_puback
from fleetsim.attackers.wire import CONNACK, DISCONNECT, PUBACK, connect_packet, publish_packet, read_properties
from fleetsim.swarm_lane import Lane
from fleetsim.swarm_tally import Tally
from fleetsim.swarm_tls import Tls
from fleetsim.swarm_wire import LaneError, Phase
from fleetsim.swarm_work import Work

KEEP_ALIVE_S = 300
_PUBACK_BYTES = 4  # without a reason code: success
_CONNACK_REFUSES = 0x80
_LAST_ID = 65_535
_now_s = time.perf_counter
_plain_puback = struct.Struct(">HH").pack
_PLAIN = 0x4002  # PUBACK, two bytes follow


class MqttLane(Lane):
    """`_framed` and `_awaited` are the packet ids that the next message and the next answer carry."""

    __slots__ = ("_awaited", "_buffer", "_framed", "receive_maximum")

    def __init__(self, tls: Tls, work: Work, tally: Tally) -> None:
        super().__init__(tls, work, tally)
        self.receive_maximum = 1
        self._buffer = b""
        self._framed = self._awaited = 1

    def greet(self) -> bytes:
        self._buffer = b""
        self._framed = self._awaited = 1
        return connect_packet(self.work.bundle.device_id, KEEP_ALIVE_S)

    def frames(self, count: int) -> list[bytes]:
        topic, first = self.work.bundle.topic, self._framed
        framed = [
            publish_packet(topic, raw, (first + index - 1) % _LAST_ID + 1)
            for index, raw in enumerate(self.work.sign(count))
        ]
        self._framed = (first + count - 1) % _LAST_ID + 1
        return framed

    def take(self, data: bytes) -> int:
        if not self._buffer and self.flying and data == _plain_puback(_PLAIN, self._awaited):  # nearly every read
            self._answered(_now_s())
            self.tally.accepted += 1
            return 1
        return self._take_any(self._buffer + data)

    def _answered(self, now_s: float) -> None:
        self.tally.latency.add(now_s - self.flying.popleft())
        self._awaited = self._awaited % _LAST_ID + 1

    def _take_any(self, data: bytes) -> int:
        """Any number of packets, the last one perhaps cut off."""
        at, answered, now_s = 0, 0, _now_s()
        while at < len(data):
            if self.flying and data[at : at + _PUBACK_BYTES] == _plain_puback(_PLAIN, self._awaited):
                self._answered(now_s)
                self.tally.accepted += 1
                answered += 1
                at += _PUBACK_BYTES
                continue
            start, end = extent(data, at)
            if end > len(data):
                break
            answered += self._other(data[at] >> 4, data[start:end], now_s)
            at = end
        self._buffer = data[at:]
        return answered

    def _other(self, kind: int, body: bytes, now_s: float) -> int:
        if kind == PUBACK and self.flying and body[:2] == self._awaited.to_bytes(2, "big"):
            self._answered(now_s)
            label = from_puback(body[2] if len(body) > 2 else 0, read_properties(body[3:]).reason).label
            self.tally.others[label] += 1
            return 1
        if kind == CONNACK and self.phase is Phase.GREETING and len(body) > 1:
            self._welcome(body)
            return 0
        if kind == DISCONNECT:
            raise LaneError(f"disconnect_{body[0] if body else 0:#04x}")
        raise LaneError("answer_to_nothing")

    def _welcome(self, body: bytes) -> None:
        if body[1] >= _CONNACK_REFUSES:
            raise LaneError(f"connack_{body[1]:#04x}")
        said = read_properties(body[2:])
        self.receive_maximum = said.receive_maximum
        self.work.above(int(said.user.get("epoch", "0")))
        if "now" in said.user:
            self.work.offset_ms = int(said.user["now"]) - time.time() * 1000
        self.phase = Phase.LIVE


def extent(data: bytes, at: int) -> tuple[int, int]:
    """(start of what follows the fixed header, end) of the packet at `at`; the end lies beyond `data` if it is cut."""
    length, shift, position = 0, 0, at + 1
    while position < len(data):
        byte = data[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return position, position + length
    return position, len(data) + 1
