"""MQTT packets made byte by byte, so that a test can make wrong ones: the codec writes only right ones."""

from __future__ import annotations

from tests.units import DEVICE_ID, TOPIC


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def field(data: bytes) -> bytes:
    """A string or binary field: two bytes of length, then the bytes."""
    return len(data).to_bytes(2, "big") + data


def packet(first: int, content: bytes) -> bytes:
    return bytes((first,)) + varint(len(content)) + content


def section(properties: bytes) -> bytes:
    return varint(len(properties)) + properties


def connect(
    *,
    first: int = 0x10,
    name: bytes = b"MQTT",
    level: int = 5,
    flags: int = 0x02,
    properties: bytes = b"",
    client_id: bytes = DEVICE_ID.encode(),
    rest: bytes = b"",
) -> bytes:
    head = field(name) + bytes((level, flags)) + (60).to_bytes(2, "big")
    return packet(first, head + section(properties) + field(client_id) + rest)


def connect_3(level: int = 4, name: bytes = b"MQTT") -> bytes:
    """A CONNECT of MQTT 3.1 or 3.1.1, which has no properties."""
    return packet(0x10, field(name) + bytes((level, 0x02)) + (60).to_bytes(2, "big") + field(b"any"))


def publish(
    *,
    first: int = 0x32,
    topic: bytes = TOPIC,
    packet_id: int | None = 1,
    properties: bytes = b"",
    payload: bytes = b"payload",
) -> bytes:
    number = b"" if packet_id is None else packet_id.to_bytes(2, "big")
    return packet(first, field(topic) + number + section(properties) + payload)


def filters(first: int, *names: bytes, options: bytes = b"\x01", packet_id: int = 1, properties: bytes = b"") -> bytes:
    """A SUBSCRIBE (0x82) or, without options, an UNSUBSCRIBE (0xA2)."""
    listed = b"".join(field(name) + options for name in names)
    return packet(first, packet_id.to_bytes(2, "big") + section(properties) + listed)


PINGREQ = b"\xc0\x00"
DISCONNECT = b"\xe0\x00"
