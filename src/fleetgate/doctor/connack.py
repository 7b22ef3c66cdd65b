"""Reads the first packet of an MQTT server: a CONNACK of version 5 or of 3.1.1, or something else.

By hand, because the codec ends the process on a string that is not UTF-8 (mqtt5 0.8), and whoever answers may be
anybody. Section numbers are those of the MQTT 5.0 standard. What the codes mean is said by `mqtt`.
"""

from __future__ import annotations

from msgspec import Struct

CONNACK = 2
_REASON_STRING, _USER_PROPERTY = 0x1F, 0x26
_WIDTH = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
_FIELDS = {0x12: 1, 0x15: 1, 0x16: 1, 0x1A: 1, 0x1C: 1, _REASON_STRING: 1, _USER_PROPERTY: 2}
"""The properties of CONNACK (3.2.2.3): those of fixed width, and those that are strings or pairs of them."""


class Connack(Struct, frozen=True):
    """`version` is 5 or 3; `told` are the user properties."""

    version: int
    code: int
    reason: str = ""
    told: dict[str, str] = {}


class NotConnackError(Exception):
    """The bytes are no CONNACK."""


def read_connack(data: bytes) -> Connack | None:
    """The CONNACK at the beginning of `data`; None while it is incomplete. Raises NotConnackError."""
    if data and data[0] != CONNACK << 4:
        raise NotConnackError
    try:
        length, start = _varint(data, 1)
    except IndexError:
        return None
    if length < 2:
        raise NotConnackError
    if len(data) < start + length:
        return None
    packet = data[start : start + length]
    if length == 2:  # version 5 has at least the length of its properties behind it
        return Connack(3, packet[1])
    try:
        return Connack(5, packet[1], *_properties(packet, 2))
    except (IndexError, KeyError):
        raise NotConnackError from None


def _properties(packet: bytes, at: int) -> tuple[str, dict[str, str]]:
    """Reason string and user properties. Raises IndexError, KeyError."""
    length, at = _varint(packet, at)
    if at + length != len(packet):
        raise IndexError
    reason, told = "", {}
    while at < len(packet):
        name, at = packet[at], at + 1
        if name in _WIDTH:
            at += _WIDTH[name]
            continue
        texts = []
        for _ in range(_FIELDS[name]):
            text, at = _text(packet, at)
            texts.append(text)
        if name == _REASON_STRING:
            reason = texts[0]
        elif name == _USER_PROPERTY:
            told[texts[0]] = texts[1]
    return reason, told


def _text(packet: bytes, at: int) -> tuple[str, int]:
    stop = at + 2 + (packet[at] << 8 | packet[at + 1])
    if stop > len(packet):
        raise IndexError
    return packet[at + 2 : stop].decode("utf-8", "replace"), stop


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Raises IndexError where it is cut off, NotConnackError where it is too long (1.5.5)."""
    value = 0
    for shift in (0, 7, 14, 21):
        byte = data[at]
        value, at = value | (byte & 0x7F) << shift, at + 1
        if byte < 0x80:
            return value, at
    raise NotConnackError
