"""Checks MQTT 5 packets from the bytes up, before the codec sees them.

The codec (mqtt5 0.8) ends the process on invalid UTF-8 and accepts packet id 0, so nothing reaches it that has not
passed here: lengths, reserved bits, properties and their types, strings. What a packet means is decided in `mqtt`.
Section numbers are those of the MQTT 5.0 standard.
"""

from __future__ import annotations

from mqtt5 import DisconnectReasonCode as Code

CONNECT, PUBLISH = 1, 3
SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT = 8, 10, 12, 14

MAX_PACKET_BYTES = 68 * 1024  # a body of 64 KiB, its envelope, and room for topic and properties
MAX_CONNECT_BYTES = 8 * 1024

_BYTE, _U16, _U32, _VARINT, _STRING, _BINARY, _PAIR = range(7)
_TYPE_OF_PROPERTY = {
    0x01: _BYTE, 0x02: _U32, 0x03: _STRING, 0x08: _STRING, 0x09: _BINARY, 0x0B: _VARINT, 0x11: _U32, 0x15: _STRING,
    0x16: _BINARY, 0x17: _BYTE, 0x18: _U32, 0x19: _BYTE, 0x1F: _STRING, 0x21: _U16, 0x22: _U16, 0x23: _U16,
    0x26: _PAIR, 0x27: _U32,
}  # fmt: skip
_BOOLEAN_PROPERTIES = frozenset({0x01, 0x17, 0x19})
_NONZERO_PROPERTIES = frozenset({0x0B, 0x21, 0x27})
_TOPIC_ALIAS, _USER_PROPERTY = 0x23, 0x26

# 2.2.2.2: which property may stand in which packet, of those that a client sends.
_CONNECT_PROPERTIES = frozenset({0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27})
_WILL_PROPERTIES = frozenset({0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26})
_PUBLISH_PROPERTIES = frozenset({0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26})
_DISCONNECT_PROPERTIES = frozenset({0x11, 0x1F, 0x26})
_SUBSCRIBE_PROPERTIES = frozenset({0x0B, 0x26})
_UNSUBSCRIBE_PROPERTIES = frozenset({0x26})


class ProtocolError(Exception):
    """The client broke the protocol: ends its connection with `code`."""

    def __init__(self, code: Code, what: str) -> None:
        super().__init__(what)
        self.code = code


def _malformed(what: str) -> ProtocolError:
    return ProtocolError(Code.MALFORMED_PACKET, what)


def next_packet(data: bytes, at: int) -> tuple[int, int, int] | None:
    """(first byte, start of what follows the fixed header, end) of the packet at `at`; None while it is incomplete.

    The announced length is judged before any of it is waited for. Raises ProtocolError.
    """
    available = len(data)
    length = shift = 0
    for position in range(at + 1, available):
        byte = data[position]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 21:
            raise _malformed("remaining length is longer than four bytes")
    else:
        return None
    end = position + 1 + length
    if end - at > MAX_PACKET_BYTES:
        raise ProtocolError(Code.PACKET_TOO_LARGE, f"packets have at most {MAX_PACKET_BYTES} bytes")
    return (data[at], position + 1, end) if end <= available else None


def open_publish(data: bytes, flags: int, start: int, end: int) -> tuple[bytes, int, int, bytes]:
    """(topic, QoS, packet id, payload) of a PUBLISH (3.3); the packet id is 0 for QoS 0.

    The topic stays bytes, to be compared with the one the peer may use. The payload is a copy.
    """
    qos = (flags >> 1) & 3
    if qos > 1:
        raise ProtocolError(
            *((Code.QOS_NOT_SUPPORTED, "QoS is 0 or 1") if qos == 2 else (Code.MALFORMED_PACKET, "QoS 3"))
        )
    if flags & 8 and not qos:
        raise _malformed("DUP is set on QoS 0")
    position = start + 2
    if position > end:
        raise _malformed("PUBLISH is cut off")
    position += data[start] << 8 | data[start + 1]
    topic = data[start + 2 : position]
    packet_id = 0
    if qos:
        position += 2
        if position > end:
            raise _malformed("PUBLISH is cut off")
        packet_id = data[position - 2] << 8 | data[position - 1]
        if not packet_id:
            raise _malformed("packet id 0")
    if position >= end:
        raise _malformed("PUBLISH is cut off")
    position = position + 1 if not data[position] else _properties(data, position, end, _PUBLISH_PROPERTIES)
    if not topic:
        raise ProtocolError(Code.PROTOCOL_ERROR, "empty topic without an alias")
    return topic, qos, packet_id, data[position:end]


def packet_id_of(data: bytes, flags: int, start: int, end: int) -> int:
    """The packet id of a PUBLISH, 0 for QoS 0: all that refusing it needs. Properties are dear, and not looked at."""
    if not flags & 6:
        return 0
    position = start + 2
    if position <= end:
        position += data[start] << 8 | data[start + 1]
    packet_id = int.from_bytes(data[position : position + 2], "big") if position + 2 <= end else 0
    if flags & 4 or not packet_id:
        raise _malformed("PUBLISH has no packet id, or another QoS than 0 and 1")
    return packet_id


def check_connect(data: bytes, flags: int, start: int, end: int) -> int:
    """The protocol level. Checks a CONNECT (3.1) completely if that is 5; of another version only the level is told."""
    if flags:
        raise _malformed("reserved bits of CONNECT are set")
    if end - start > MAX_CONNECT_BYTES:
        raise ProtocolError(Code.PACKET_TOO_LARGE, f"CONNECT has at most {MAX_CONNECT_BYTES} bytes")
    name, position = _binary(data, start, end)
    if position >= end or name not in (b"MQTT", b"MQIsdp"):
        raise _malformed("not an MQTT CONNECT")
    level = data[position]
    if name != b"MQTT" and level != 3:  # MQIsdp is the name of 3.1 only; as another version it was not checked here
        raise _malformed("not an MQTT CONNECT")
    if level != 5:
        return level
    position += 1
    if position + 3 > end:
        raise _malformed("CONNECT is cut off")
    connect = data[position]
    will_qos = (connect >> 3) & 3
    if connect & 1 or will_qos == 3 or (not connect & 4 and connect & 0x38):
        raise _malformed("connect flags contradict each other")
    position = _properties(data, position + 3, end, _CONNECT_PROPERTIES)
    position = _string(data, position, end)
    if connect & 4:
        position = _properties(data, position, end, _WILL_PROPERTIES)
        position = _string(data, position, end)
        position = _binary(data, position, end)[1]
    if connect & 0x80:
        position = _string(data, position, end)
    if connect & 0x40:
        position = _binary(data, position, end)[1]
    if position != end:
        raise _malformed("bytes behind the end of CONNECT")
    return level


def check_disconnect(data: bytes, flags: int, start: int, end: int) -> None:
    """3.14; the reason of a client's leaving changes nothing."""
    if flags:
        raise _malformed("reserved bits of DISCONNECT are set")
    if end - start > 1 and _properties(data, start + 1, end, _DISCONNECT_PROPERTIES) != end:
        raise _malformed("bytes behind the end of DISCONNECT")


def check_subscribe(data: bytes, flags: int, start: int, end: int) -> tuple[int, int]:
    """(packet id, number of filters) of a SUBSCRIBE (3.8)."""
    return _check_filters(data, flags, start, end, _SUBSCRIBE_PROPERTIES, 1)


def check_unsubscribe(data: bytes, flags: int, start: int, end: int) -> tuple[int, int]:
    """(packet id, number of filters) of an UNSUBSCRIBE (3.10)."""
    return _check_filters(data, flags, start, end, _UNSUBSCRIBE_PROPERTIES, 0)


def _check_filters(
    data: bytes, flags: int, start: int, end: int, allowed: frozenset[int], options: int
) -> tuple[int, int]:
    if flags != 2 or start + 2 > end:
        raise _malformed("not a SUBSCRIBE or UNSUBSCRIBE")
    packet_id = data[start] << 8 | data[start + 1]
    if not packet_id:
        raise _malformed("packet id 0")
    position = _properties(data, start + 2, end, allowed)
    filters = 0
    while position < end:
        position = _string(data, position, end) + options
        filters += 1
    if position != end or not filters:
        raise _malformed("topic filters are cut off or missing")
    return packet_id, filters


def _properties(data: bytes, at: int, end: int, allowed: frozenset[int]) -> int:
    """Walks a property section (2.2.2); where it ends. A property other than the user's stands there once."""
    length, position = _varint(data, at, end)
    stop = position + length
    if stop > end:
        raise _malformed("properties are cut off")
    seen: set[int] = set()
    while position < stop:
        name = data[position]
        if name not in allowed:
            raise _malformed(f"property {name:#04x} may not stand here")
        if name in seen and name != _USER_PROPERTY:
            raise ProtocolError(Code.PROTOCOL_ERROR, f"property {name:#04x} stands there twice")
        if name == _TOPIC_ALIAS:
            raise ProtocolError(Code.TOPIC_ALIAS_INVALID, "topic aliases are not allowed (maximum 0)")
        seen.add(name)
        position = _property(data, name, position + 1, stop)
    return position


_FIXED_WIDTH = {_BYTE: 1, _U16: 2, _U32: 4}


def _property(data: bytes, name: int, at: int, end: int) -> int:
    kind = _TYPE_OF_PROPERTY[name]
    if kind == _STRING:
        return _string(data, at, end)
    if kind == _PAIR:
        return _string(data, _string(data, at, end), end)
    if kind == _BINARY:
        return _binary(data, at, end)[1]
    if kind == _VARINT:
        value, position = _varint(data, at, end)
    else:
        position = at + _FIXED_WIDTH[kind]
        if position > end:
            raise _malformed("a property is cut off")
        value = int.from_bytes(data[at:position], "big")
    if (name in _BOOLEAN_PROPERTIES and value > 1) or (name in _NONZERO_PROPERTIES and not value):
        raise ProtocolError(Code.PROTOCOL_ERROR, f"property {name:#04x} is out of range")
    return position


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for index in range(4):
        if at + index >= end:
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _malformed("a variable byte integer is cut off or too long")


def _binary(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    start = at + 2
    if start > end:
        raise _malformed("a length is cut off")
    stop = start + (data[at] << 8 | data[at + 1])
    if stop > end:
        raise _malformed("a field is cut off")
    return data[start:stop], stop


def _string(data: bytes, at: int, end: int) -> int:
    """Where the UTF-8 string at `at` ends (1.5.4: well-formed, no U+0000)."""
    text, stop = _binary(data, at, end)
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise _malformed("a string is not UTF-8") from None
    if b"\x00" in text:
        raise _malformed("a string has U+0000 in it")
    return stop
