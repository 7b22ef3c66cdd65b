"""Decides how one connection of the swarm speaks: bytes of prepared messages out, answers in, MQTT 5 or HTTPS.

A lane owns its socket and what is in flight on it; it never resends. Each answer is compared with the message it must
belong to: an answer out of order, or to nothing, ends the lane. When a lane connects and when it may send is the
loop's (`swarm`); what an answer means, that of `answers`.
"""

import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from enum import Enum, auto

import msgspec

from fleetsim import encode
from fleetsim.answers import ACCEPTED, HTTP_ITEMS, from_item, from_puback
from fleetsim.attackers.wire import (
    CONNACK,
    DISCONNECT,
    PUBACK,
    connect_packet,
    publish_packet,
    read_properties,
)
from fleetsim.https_agent import CONTENT_TYPES, PATH
from fleetsim.swarm_tally import Tally
from fleetsim.swarm_work import CHUNK, Work

READ_BYTES = 16_384  # a TLS record: nothing stays behind inside OpenSSL, where epoll does not see it
KEEP_ALIVE_S = 300
_CONNACK_REFUSES = 0x80
_now_s = time.perf_counter

_decode_items = msgspec.msgpack.Decoder(list[dict[str, str | int | None]]).decode


class Phase(Enum):
    """DOWN: no socket. DIALLING: TCP. SHAKING: TLS. GREETING: CONNECT is out. LIVE: may send. ENDED: failed."""

    DOWN = auto()
    DIALLING = auto()
    SHAKING = auto()
    GREETING = auto()
    LIVE = auto()
    ENDED = auto()


class LaneError(Exception):
    """The gate ended the connection or answered what was not asked; the text is a label for counting."""


class Lane(ABC):
    """One connection. `ready` are (bytes to send, what the answer must show), `flying` (that, when due) in seconds."""

    __slots__ = ("context", "dialled_s", "fd", "flying", "out", "phase", "read", "ready", "sock", "tally", "work")

    def __init__(self, context: ssl.SSLContext, work: Work, tally: Tally) -> None:
        self.context, self.work, self.tally = context, work, tally
        self.phase = Phase.DOWN
        self.sock: socket.socket | None = None
        self.read: Callable[[int], bytes] = _not_connected  # of the socket: looked up once, not for each message
        self.fd = -1
        self.dialled_s = 0.0
        self.out = b""
        self.ready: deque[tuple[bytes, bytes]] = deque()
        self.flying: deque[tuple[bytes, float]] = deque()

    # What MQTT and HTTPS do apart.

    @abstractmethod
    def greet(self) -> bytes:
        """What is said once TLS is up; empty when the lane is live at once."""

    @abstractmethod
    def prepare(self, count: int) -> int:
        """Sign and frame `count` more messages; how many requests that made."""

    @abstractmethod
    def take(self, data: bytes) -> int:
        """Read what the gate sent; how many requests it answered. Raises LaneError."""

    # What they do alike.

    def dial(self, address: tuple[str, int]) -> None:
        """Begin to connect, without waiting. Raises OSError."""
        self.dialled_s = _now_s()
        self.sock = sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = sock.fileno()
        self.phase = Phase.DIALLING
        sock.connect_ex(address)

    def shake(self) -> None:
        """Go on with TCP and TLS until TLS is up. Raises OSError, and ssl.SSLWant… for "call again"."""
        assert self.sock is not None
        if self.phase is Phase.DIALLING:
            if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "connect")
            self.sock = self.context.wrap_socket(self.sock, do_handshake_on_connect=False)
            self.read = self.sock.read
            self.phase = Phase.SHAKING
        assert isinstance(self.sock, ssl.SSLSocket)
        self.sock.do_handshake()
        greeting = self.greet()
        self.phase = Phase.GREETING if greeting else Phase.LIVE
        if greeting:
            self.send(greeting)

    def fire(self, count: int, due_s: float) -> None:
        """Send the next `count` prepared requests in one write; signs more when they run out."""
        ready = self.ready
        while len(ready) < count:
            self.prepare(CHUNK)
        if count == 1:
            frame, token = ready.popleft()
            self.flying.append((token, due_s))
        else:
            taken = [ready.popleft() for _ in range(count)]
            self.flying.extend((token, due_s) for _, token in taken)
            frame = b"".join(frame for frame, _ in taken)
        if self.out:
            self.out += frame
        else:
            self.send(frame)

    def send(self, data: bytes) -> None:
        """Send now what the socket takes, keep the rest in `out` for when it is writable. Raises OSError."""
        assert self.sock is not None
        try:
            sent = self.sock.send(data)
            while sent < len(data):
                data = data[sent:]
                sent = self.sock.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self.out = data
        else:
            self.out = b""

    def close(self, phase: Phase) -> None:
        """Drop the socket without a goodbye, as a vehicle does in a tunnel."""
        self.phase = phase
        if self.sock is not None:
            self.sock.close()
            self.sock, self.read = None, _not_connected
        self.out = b""
        self.flying.clear()


class MqttLane(Lane):
    """QoS 1 over MQTT 5; what an answer must show is the bytes of its PUBACK."""

    __slots__ = ("_buffer", "_next_id", "receive_maximum")

    def __init__(self, context: ssl.SSLContext, work: Work, tally: Tally) -> None:
        super().__init__(context, work, tally)
        self.receive_maximum = 1
        self._buffer = b""
        self._next_id = 1

    def greet(self) -> bytes:
        self._buffer = b""
        return connect_packet(self.work.bundle.device_id, KEEP_ALIVE_S)

    def prepare(self, count: int) -> int:
        topic = self.work.bundle.topic
        for raw in self.work.sign(count):
            packet_id = self._next_id
            self._next_id = packet_id % 65_535 + 1
            self.ready.append((publish_packet(topic, raw, packet_id), b"\x40\x02" + packet_id.to_bytes(2, "big")))
        return count

    def take(self, data: bytes) -> int:
        flying = self.flying
        if len(data) == 4 and flying and data == flying[0][0]:  # one plain PUBACK: nearly every read
            self.tally.latency.add(_now_s() - flying.popleft()[1])
            self.tally.accepted += 1
            return 1
        return self._take_any(self._buffer + data)

    def _take_any(self, data: bytes) -> int:
        """Any number of packets, the last one perhaps cut off."""
        at, answered, now = 0, 0, _now_s()
        flying, tally = self.flying, self.tally
        while at < len(data):
            if flying and data[at : at + 4] == flying[0][0]:
                tally.latency.add(now - flying.popleft()[1])
                tally.accepted += 1
                at += 4
                answered += 1
                continue
            start, end = _extent(data, at)
            if end > len(data):
                break
            answered += self._other(data[at] >> 4, data[start:end], now)
            at = end
        self._buffer = data[at:]
        return answered

    def _other(self, kind: int, body: bytes, now: float) -> int:
        if kind == PUBACK and self.flying and body[:2] == self.flying[0][0][2:]:
            self.tally.latency.add(now - self.flying.popleft()[1])
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
        self.ready.clear()  # signed for a former connection, under a former epoch
        if "now" in said.user:
            self.work.offset_ms = int(said.user["now"]) - time.time() * 1000
        self.phase = Phase.LIVE


class HttpsLane(Lane):
    """POSTs of `batch` envelopes with keep-alive, one at a time; what an answer must show is the number of items."""

    __slots__ = ("_buffer", "batch")

    def __init__(self, context: ssl.SSLContext, work: Work, tally: Tally, batch: int) -> None:
        super().__init__(context, work, tally)
        self.batch = batch
        self._buffer = b""

    def greet(self) -> bytes:
        self._buffer = b""
        return b""

    def prepare(self, count: int) -> int:
        requests = -(-count // self.batch)
        envelopes = self.work.sign(requests * self.batch)
        for at in range(0, len(envelopes), self.batch):
            content = encode.batch(envelopes[at : at + self.batch], "msgpack")
            head = (
                f"POST {PATH} HTTP/1.1\r\nHost: gate\r\nContent-Type: {CONTENT_TYPES['msgpack']}\r\n"
                f"Content-Length: {len(content)}\r\n\r\n"
            )
            self.ready.append((head.encode() + content, b""))
        return requests

    def take(self, data: bytes) -> int:
        data = self._buffer + data
        end_of_head = data.find(b"\r\n\r\n") + 4
        size = _content_length(data[:end_of_head]) if end_of_head > 3 else 0
        if end_of_head <= 3 or len(data) < end_of_head + size:
            self._buffer = data
            return 0
        self._buffer = data[end_of_head + size :]
        if not self.flying:
            raise LaneError("answer_to_nothing")
        self.tally.latency.add(_now_s() - self.flying.popleft()[1])
        self._count(int(data[9:12]), data[end_of_head : end_of_head + size])
        return 1

    def _count(self, status: int, content: bytes) -> None:
        if status != HTTP_ITEMS:
            self.tally.others[f"http_{status}"] += self.batch
            return
        items = _decode_items(content)
        if len(items) != self.batch:
            raise LaneError("wrong_number_of_items")
        for item in items:
            if item["status"] == ACCEPTED:
                self.tally.accepted += 1
            else:
                self.tally.others[from_item(item).label] += 1


def _not_connected(_: int) -> bytes:
    raise LaneError("not_connected")


def _extent(data: bytes, at: int) -> tuple[int, int]:
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


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return int(value)
    raise LaneError("no_content_length")
