"""Decides how a device of a scenario speaks to the gate: its core's messages over MQTT or HTTPS, on a wire.

What is sent and what an answer means is the core's; a link only moves bytes, as the agents do for the reference device.
It can also do what no core asks for: send bytes of somebody else's making, and lose an answer.
"""

import ssl
from abc import abstractmethod
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Protocol

import msgspec

from fleetsim import encode
from fleetsim.answers import HTTP_ITEMS, HTTP_LATER, HTTP_SPLIT, Answer, from_puback
from fleetsim.attackers.wire import CONNACK, DISCONNECT, PUBACK, connect_packet, publish_packet, read_properties
from fleetsim.core import DeviceCore
from fleetsim.https_agent import (
    CONTENT_TYPES,
    DATE_MIDDLE_MS,
    DATE_TOLERANCE_MS,
    FULL_BATCH_BYTES,
    MAX_REQUEST_BYTES,
    PATH,
    read_items,
)
from fleetsim.outbox import Entry, Key
from fleetsim.swarm_mqtt import extent
from fleetsim.swarm_wire import LaneError, Phase, Wire

# Virtual seconds: the gate offers less. No device of a scenario is silent for so long while it is connected.
KEEP_ALIVE_S = 65_535
_REFUSES = 0x80

Told = Callable[[str], None]
"""Gets the gate's answer, as a label."""


class Owner(Protocol):
    """Whose link it is."""

    def go_on(self) -> None:
        """It came up, or an answer came."""
        ...

    def over(self, link: "Link") -> None:
        """It has ended, whoever ended it."""
        ...


class Link(Wire):
    """One connection of `core`'s."""

    __slots__ = ("core", "loses_answers", "owner")

    def __init__(self, context: ssl.SSLContext, core: DeviceCore, owner: Owner) -> None:
        super().__init__(context)
        self.core, self.owner = core, owner
        self.loses_answers = False

    @abstractmethod
    def pump(self) -> None:
        """Send what the core has to send now. Raises OSError."""

    def close(self, phase: Phase) -> None:
        """What was in flight goes out again on the next link."""
        super().close(phase)
        self._tell_core()
        self.owner.over(self)

    def _tell_core(self) -> None:
        self.core.disconnected()


class MqttLink(Link):
    """MQTT 5; `_keys` are the messages in flight by packet id, `_told` whom an injected one's answer is for."""

    __slots__ = ("_buffer", "_disconnect_code", "_keys", "_last_id", "_refusal", "_told")

    def __init__(self, context: ssl.SSLContext, core: DeviceCore, owner: Owner) -> None:
        super().__init__(context, core, owner)
        self._buffer = b""
        self._keys: dict[int, Key] = {}
        self._told: dict[int, Told] = {}
        self._last_id = 0
        self._disconnect_code: int | None = None
        self._refusal: int | None = None

    def greet(self) -> bytes:
        return connect_packet(self.core.bundle.device_id, KEEP_ALIVE_S)

    def pump(self) -> None:
        packets = []
        while entry := self.core.take():
            packets.append(self._packet(entry))
        if packets:
            self.send(self.seal(b"".join(packets)))

    def _packet(self, entry: Entry) -> bytes:
        packet_id = self._new_id()
        self._keys[packet_id] = entry.key
        return publish_packet(self.core.bundle.topic, entry.raw, packet_id)

    def inject(self, raw: bytes, told: Told) -> None:
        """Send bytes that the core knows nothing of, under this device's topic. Raises OSError."""
        packet_id = self._new_id()
        self._told[packet_id] = told
        self.send(self.seal(publish_packet(self.core.bundle.topic, raw, packet_id)))

    def _new_id(self) -> int:
        self._last_id = self._last_id % 65_535 + 1
        return self._last_id

    def take(self, data: bytes) -> int:
        data, at, answered = self._buffer + data, 0, 0
        while at < len(data):
            start, end = extent(data, at)
            if end > len(data):
                break
            answered += self._read_packet(data[at] >> 4, data[start:end])
            at = end
        self._buffer = data[at:]
        return answered

    def _read_packet(self, kind: int, body: bytes) -> int:
        if kind == PUBACK and len(body) > 1:
            return self._read_puback(body)
        if kind == CONNACK and self.phase is Phase.GREETING and len(body) > 1:
            self._welcome(body)
            return 0
        if kind == DISCONNECT:
            self._disconnect_code = body[0] if body else 0
            raise LaneError(f"disconnect_{self._disconnect_code:#04x}")
        raise LaneError("answer_to_nothing")

    def _read_puback(self, body: bytes) -> int:
        if self.loses_answers:
            raise LaneError("answer_lost")
        packet_id, code = body[0] << 8 | body[1], body[2] if len(body) > 2 else 0
        said = read_properties(body[3:])
        answer = from_puback(code, said.reason, said.user.items())
        if key := self._keys.pop(packet_id, None):
            self.core.answered(key, answer)
        elif told := self._told.pop(packet_id, None):
            told(answer.label)
        else:
            raise LaneError("answer_to_nothing")
        return 1

    def _welcome(self, body: bytes) -> None:
        if body[1] >= _REFUSES:
            self._refusal = body[1]
            raise LaneError(f"connack_{body[1]:#04x}")
        said = read_properties(body[2:])
        if "now" in said.user:
            self.core.told_time(int(said.user["now"]))
        self.core.connected(int(said.user.get("epoch", "0")), said.receive_maximum)
        self.phase = Phase.LIVE

    def _tell_core(self) -> None:
        if self._refusal is not None:
            self.core.refused_connection(self._refusal)
        else:
            self.core.disconnected(self._disconnect_code)


class HttpsLink(Link):
    """HTTPS: a batch in flight at a time. A device asks for the time before it signs anything."""

    __slots__ = ("_asked_time", "_batch", "_buffer")

    def __init__(self, context: ssl.SSLContext, core: DeviceCore, owner: Owner) -> None:
        super().__init__(context, core, owner)
        self._buffer = b""
        self._batch: list[Entry] = []
        self._asked_time = False

    def greet(self) -> bytes:
        return b""

    def pump(self) -> None:
        if self._batch or self._asked_time:
            return
        if self.core.needs_clock:
            self._asked_time = True
            self.send(self.seal(f"HEAD {PATH} HTTP/1.1\r\nHost: gate\r\n\r\n".encode()))
            return
        size = 0
        while len(self._batch) < self.core.batch_items and size < FULL_BATCH_BYTES and (entry := self.core.take()):
            self._batch.append(entry)
            size += len(entry.raw) + 5
        if self._batch:
            content = encode.batch([entry.raw for entry in self._batch], "msgpack")
            head = (
                f"POST {PATH} HTTP/1.1\r\nHost: gate\r\nContent-Type: {CONTENT_TYPES['msgpack']}\r\n"
                f"Content-Length: {len(content)}\r\n\r\n"
            )
            self.send(self.seal(head.encode() + content))

    def take(self, data: bytes) -> int:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return 0
        status, fields = _read_head(head)
        size = 0 if self._asked_time else int(fields.get("content-length", "0"))
        if len(rest) < size:
            return 0
        self._buffer = rest[size:]
        if self.loses_answers:
            raise LaneError("answer_lost")
        self._hear_time(fields)
        if self._asked_time:
            self._asked_time = False
            self.core.connected(max_packet_bytes=MAX_REQUEST_BYTES)
        else:
            self._answer(status, fields, rest[:size])
        return 1

    def _answer(self, status: int, fields: dict[str, str], content: bytes) -> None:
        batch, self._batch = self._batch, []
        keys = [entry.key for entry in batch]
        if status == HTTP_ITEMS:
            for entry, answer in zip(batch, _items(content), strict=True):
                self.core.answered(entry.key, answer)
        elif status == HTTP_SPLIT:
            self.core.too_large(keys)
        elif status in HTTP_LATER:
            after = fields.get("retry-after", "")
            self.core.not_now(keys, float(after) if after.isdecimal() else None)
        else:
            raise LaneError(f"http_{status}")

    def _hear_time(self, fields: dict[str, str]) -> None:
        try:
            date = parsedate_to_datetime(fields.get("date", ""))
        except ValueError:
            return  # without a Date nothing is signed; the next answer may have one
        self.core.told_time(date.timestamp() * 1000 + DATE_MIDDLE_MS, DATE_TOLERANCE_MS)


def _read_head(head: bytes) -> tuple[int, dict[str, str]]:
    lines = head.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    try:
        return int(lines[0].split(" ")[1]), fields
    except (IndexError, ValueError):
        raise LaneError("not_http") from None


def _items(content: bytes) -> list[Answer]:
    try:
        return read_items(content, "msgpack")
    except msgspec.MsgspecError:
        raise LaneError("not_an_answer") from None
