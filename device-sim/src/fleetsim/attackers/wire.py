"""Decides how an attacker speaks: a small MQTT 5 and HTTP over mutual TLS, able to say what a library refuses to.

It reads what the gate sends as strictly as it must to tell the answers apart, and raises ConnectionError otherwise.
"""

import asyncio
import ssl
import struct
from typing import NamedTuple

from fleetsim.answers import from_puback

# An answer that takes longer than this is no answer; the gate promises milliseconds.
TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1 << 20

CONNACK, PUBACK, DISCONNECT = 2, 4, 14
# Sizes of the properties of fixed length that a server may send; the others are strings and pairs.
_FIXED = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
_REASON_STRING, _RECEIVE_MAXIMUM, _USER_PROPERTY = 0x1F, 0x21, 0x26


class Packet(NamedTuple):
    """A packet of the gate: its type and what follows the fixed header."""

    kind: int
    data: bytes


class Properties(NamedTuple):
    """The properties that matter here."""

    reason: str | None
    receive_maximum: int
    user: dict[str, str]


# Stands for a refusal by TLS, which has no MQTT code.
TLS_ALERT = 0


class RefusedError(ConnectionError):
    """CONNACK with a refusing code, or TLS_ALERT."""

    def __init__(self, code: int) -> None:
        self.label = f"connack_{code:#04x}" if code else "tls_alert"
        super().__init__(self.label)
        self.code = code


def turned_away(error: BaseException) -> bool:
    """True for a TLS alert: the gate looked at the certificate and refuses it, which waiting does not change."""
    return isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or "")


class EndedError(ConnectionError):
    """The gate sent DISCONNECT."""

    def __init__(self, code: int) -> None:
        super().__init__(f"DISCONNECT {code:#04x}")
        self.code = code


def varint(value: int) -> bytes:
    """MQTT's variable byte integer."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def text(value: str) -> bytes:
    """A string with its length."""
    raw = value.encode()
    return struct.pack(">H", len(raw)) + raw


def connect_packet(client_id: str, keep_alive_s: int = 30) -> bytes:
    """CONNECT of MQTT 5: clean start, no will, no user name."""
    data = text("MQTT") + b"\x05\x02" + struct.pack(">H", keep_alive_s) + b"\x00" + text(client_id)
    return b"\x10" + varint(len(data)) + data


def publish_packet(topic: str, payload: bytes, packet_id: int) -> bytes:
    """PUBLISH with QoS 1."""
    data = text(topic) + struct.pack(">H", packet_id) + b"\x00" + payload
    return b"\x32" + varint(len(data)) + data


class Session:
    """One MQTT connection after its CONNACK. `now_ms` and `epoch` are what the gate said there."""

    def __init__(self, streams: "Streams", greeting: Properties) -> None:
        self._streams = streams
        self.now_ms = int(greeting.user.get("now", "0"))
        self.epoch = int(greeting.user.get("epoch", "0"))
        self.receive_maximum = min(greeting.receive_maximum, 128)

    def publish(self, topic: str, payload: bytes, packet_id: int) -> None:
        """Queue a PUBLISH."""
        self._streams.writer.write(publish_packet(topic, payload, packet_id))

    async def puback(self) -> tuple[int, str]:
        """The next PUBACK as (packet id, label). Raises ConnectionError, EOFError, TimeoutError."""
        await self._streams.writer.drain()
        while True:
            packet = await self._streams.packet()
            if packet.kind == DISCONNECT:
                raise EndedError(packet.data[0] if packet.data else 0)
            if packet.kind == PUBACK:
                return _read_puback(packet.data)

    async def close(self) -> None:
        """Say goodbye, if the other side is still there."""
        self._streams.writer.write(b"\xe0\x00")
        await self._streams.close()


class Streams:
    """A TLS connection that reads MQTT packets and HTTP responses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def packet(self) -> Packet:
        """The next MQTT packet."""
        async with asyncio.timeout(TIMEOUT_S):
            first = (await self.reader.readexactly(1))[0]
            length = shift = 0
            while True:
                byte = (await self.reader.readexactly(1))[0]
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    break
                if shift > 21:
                    raise ConnectionError("a packet length of more than four bytes")
            if length > MAX_ANSWER_BYTES:
                raise ConnectionError("a packet that is too long")
            return Packet(first >> 4, await self.reader.readexactly(length))

    async def response(self) -> tuple[int, bytes]:
        """An HTTP response with a Content-Length: status and body."""
        async with asyncio.timeout(TIMEOUT_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            words = head[0].split(" ")
            if len(words) < 2 or not words[1].isdecimal():
                raise ConnectionError(f"not HTTP: {head[0][:40]!r}")
            fields = {name.strip().lower(): value.strip() for name, _, value in (h.partition(":") for h in head[1:])}
            size = min(int(fields.get("content-length", "0") or 0), MAX_ANSWER_BYTES)
            return int(words[1]), await self.reader.readexactly(size)

    async def drained(self) -> int:
        """Read until the other side closes; the number of bytes. Raises TimeoutError if it does not."""
        size = 0
        async with asyncio.timeout(TIMEOUT_S):
            while chunk := await self.reader.read(65536):
                size += len(chunk)
        return size

    async def close(self) -> None:
        """Close; how the other side takes it does not matter."""
        self.writer.close()
        try:
            async with asyncio.timeout(1):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            self.writer.transport.abort()


async def open_tls(address: tuple[str, int], context: ssl.SSLContext | None) -> Streams:
    """A connection; without a context it is plain TCP. Raises OSError, TimeoutError."""
    async with asyncio.timeout(TIMEOUT_S):
        # The context checks its own name; asyncio only wants to see one.
        name = None if context is None else "gate"
        reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=name)
    return Streams(reader, writer)


async def open_session(address: tuple[str, int], context: ssl.SSLContext, client_id: str) -> Session:
    """Connect and be greeted. Raises RefusedError, OSError, EOFError, TimeoutError."""
    streams = await open_tls(address, context)
    try:
        streams.writer.write(connect_packet(client_id))
        packet = await streams.packet()
        if packet.kind != CONNACK or len(packet.data) < 2:
            raise ConnectionError("not a CONNACK")
        if packet.data[1] >= 0x80:
            raise RefusedError(packet.data[1])
        return Session(streams, read_properties(packet.data[2:]))
    except BaseException:
        await streams.close()
        raise


async def post(address: tuple[str, int], context: ssl.SSLContext, body: bytes, content_type: str) -> tuple[int, bytes]:
    """POST /v1/telemetry on a connection of its own. Raises OSError, EOFError, TimeoutError."""
    streams = await open_tls(address, context)
    try:
        head = f"POST /v1/telemetry HTTP/1.1\r\nHost: gate\r\nContent-Type: {content_type}\r\n"
        streams.writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        streams.writer.write(body)
        # Not drained: a gate that refuses by the length alone answers before it has read the body.
        return await streams.response()
    finally:
        await streams.close()


def _read_puback(data: bytes) -> tuple[int, str]:
    if len(data) < 2:
        raise ConnectionError("a PUBACK that is too short")
    packet_id = data[0] << 8 | data[1]
    code = data[2] if len(data) > 2 else 0
    properties = read_properties(data[3:])
    return packet_id, from_puback(code, properties.reason).label


def read_properties(data: bytes) -> Properties:
    reason, receive_maximum, user = None, 65_535, dict[str, str]()
    position = 1 if data and data[0] < 0x80 else 2
    while position < len(data):
        name = data[position]
        position += 1
        if name == _USER_PROPERTY:
            key, position = _read_text(data, position)
            user[key], position = _read_text(data, position)
        elif name in _FIXED:
            if name == _RECEIVE_MAXIMUM:
                receive_maximum = int.from_bytes(data[position : position + 2], "big")
            position += _FIXED[name]
        else:
            value, position = _read_text(data, position)
            reason = value if name == _REASON_STRING else reason
    return Properties(reason, receive_maximum, user)


def _read_text(data: bytes, position: int) -> tuple[str, int]:
    end = position + 2 + int.from_bytes(data[position : position + 2], "big")
    return data[position + 2 : end].decode("utf-8", "replace"), end
