"""Decides the bytes of a message: the envelope in its two forms and the body in its three encodings.

Also reads its own bodies back, which a device needs when it must give events a new number. It trusts what it is
given: limits belong to the caller (`core`) and to the gate, and the attackers break them on purpose.
"""

import math
import struct
from collections.abc import Sequence
from typing import Literal

import msgspec

from fleetsim import mac

VERSION = 1
ROWS_MSGPACK, ROWS_JSON, COLUMNS = 1, 2, 3
MAX_BODY_BYTES = 65_536
MAX_EVENTS = 1_000
OLDEST_AT_MS = -30 * 24 * 3600 * 1000
OLDEST_AT_IN_COLUMNS_MS = -(2**31)  # 24.8 days: `at` has 32 bits there
KINDS = frozenset(("sample", "trip_start", "trip_end", "charge_start", "charge_end", "fault", "heartbeat"))

Form = Literal["msgpack", "json"]
Name = int | str  # a signal by its number in the catalogue, or by its VSS path

_F32, _F64 = 1, 2


class Event(msgspec.Struct, array_like=True, frozen=True):
    """One event; `at` is in milliseconds and relative to the message's `sent_at` (or as its holder says)."""

    at: int
    kind: str
    signals: dict[Name, float]
    texts: dict[Name, str]


class Body(msgspec.Struct, array_like=True, frozen=True):
    """What a message says, in whatever encoding."""

    software: str
    config: str
    events: list[Event]


class Envelope(msgspec.Struct, frozen=True):
    """The eight fields of an envelope, in their order on the wire."""

    v: int
    kid: int
    epoch: int
    seq: int
    sent_at: int
    enc: int
    body: bytes
    tag: bytes


class _JsonEvent(msgspec.Struct):
    at: int
    kind: str
    signals: dict[str, float] = {}
    texts: dict[str, str] = {}


class _JsonBody(msgspec.Struct):
    software: str
    config: str
    events: list[_JsonEvent]


pack = msgspec.msgpack.Encoder().encode
_dump = msgspec.json.Encoder().encode
_unpack_rows = msgspec.msgpack.Decoder(Body).decode
_load_rows = msgspec.json.Decoder(_JsonBody).decode
_unpack_columns = msgspec.msgpack.Decoder(tuple[str, str, str, int, bytes, dict[int, tuple[int, bytes]]]).decode
_unpack_envelope = msgspec.msgpack.Decoder(tuple[int, int, int, int, int, int, bytes, bytes]).decode
_load_envelope = msgspec.json.Decoder(Envelope).decode


def sign(
    key: bytes, *, kid: int, epoch: int, seq: int, sent_at: int, enc: int, body: bytes, form: Form = "msgpack"
) -> bytes:
    """The bytes of a signed envelope. Raises struct.error for a number that does not fit its field."""
    signed = mac.header(v=VERSION, enc=enc, kid=kid, epoch=epoch, seq=seq, sent_at=sent_at)
    tag = mac.tag(key, signed, body)
    return encode_envelope(Envelope(VERSION, kid, epoch, seq, sent_at, enc, body, tag), form)


def encode_envelope(envelope: Envelope, form: Form) -> bytes:
    """The envelope as an array of eight in MessagePack, or as an object with base64 in JSON."""
    if form == "json":
        return _dump(envelope)
    return pack(msgspec.structs.astuple(envelope))


def decode_envelope(raw: bytes) -> Envelope:
    """Read back an envelope of this device's own making. Raises msgspec.MsgspecError if it is damaged."""
    if raw[:1] == b"\x98":
        return Envelope(*_unpack_envelope(raw))
    return _load_envelope(raw)


def batch(envelopes: Sequence[bytes], form: Form) -> bytes:
    """An HTTPS request's body: one envelope as it is, several as an array."""
    if len(envelopes) == 1:
        return envelopes[0]
    if form == "json":
        return b"[" + b",".join(envelopes) + b"]"
    return pack(envelopes)


def encode_body(enc: int, body: Body) -> bytes:
    """Body bytes in encoding `enc` (1 to 3). Raises ValueError for what the encoding cannot express."""
    if enc == ROWS_MSGPACK:
        return pack(body)
    if enc == ROWS_JSON:
        return _dump(_json_rows(body))
    if enc == COLUMNS:
        return _encode_columns(body)
    raise ValueError(f"enc is 1, 2 or 3, not {enc}")


def decode_body(enc: int, raw: bytes) -> Body:
    """Read back a body of this device's own making. Raises msgspec.MsgspecError or ValueError if it is damaged."""
    if enc == ROWS_MSGPACK:
        return _unpack_rows(raw)
    if enc == ROWS_JSON:
        rows = _load_rows(raw)
        events = [
            Event(e.at, e.kind, dict[Name, float](e.signals.items()), dict[Name, str](e.texts.items()))
            for e in rows.events
        ]
        return Body(rows.software, rows.config, events)
    if enc == COLUMNS:
        return _decode_columns(raw)
    raise ValueError(f"enc is 1, 2 or 3, not {enc}")


def _json_rows(body: Body) -> dict[str, object]:
    events: list[dict[str, object]] = []
    for event in body.events:
        row: dict[str, object] = {"at": event.at, "kind": event.kind}
        # Both may be left out when empty; leaving them out keeps a heartbeat at thirty bytes.
        if event.signals:
            row["signals"] = event.signals
        if event.texts:
            row["texts"] = event.texts
        events.append(row)
    return {"software": body.software, "config": body.config, "events": events}


def column_numbers(events: Sequence[Event]) -> list[int]:
    """The signals of these events, for columns. Raises ValueError for events that columns cannot express."""
    if len({event.kind for event in events}) != 1 or any(event.texts for event in events):
        raise ValueError("columns hold events of one kind and no texts: use enc 1 or 2")
    names = {name for event in events for name in event.signals}
    numbers = sorted(name for name in names if isinstance(name, int))
    if len(numbers) != len(names):
        raise ValueError("columns name a signal by its number, not by its path: use enc 1 or 2")
    return numbers


def _encode_columns(body: Body) -> bytes:
    numbers = column_numbers(body.events)
    columns = {
        number: pack_column([event.signals.get(number, math.nan) for event in body.events]) for number in numbers
    }
    n = len(body.events)
    at = struct.pack(f"<{n}i", *(event.at for event in body.events))
    return pack((body.software, body.config, body.events[0].kind, n, at, columns))


def pack_column(values: Sequence[float]) -> tuple[int, bytes]:
    """(type, bytes): f32 where that loses nothing, otherwise f64."""
    n = len(values)
    try:
        narrow = struct.pack(f"<{n}f", *values)
    except OverflowError:  # beyond f32's range
        return _F64, struct.pack(f"<{n}d", *values)
    if all(a == b or b != b for a, b in zip(struct.unpack(f"<{n}f", narrow), values, strict=True)):
        return _F32, narrow
    return _F64, struct.pack(f"<{n}d", *values)


def _decode_columns(raw: bytes) -> Body:
    software, config, kind, n, at, columns = _unpack_columns(raw)
    times = struct.unpack(f"<{n}i", at)
    rows: list[dict[Name, float]] = [{} for _ in range(n)]
    for number, (width, data) in columns.items():
        for row, value in zip(rows, struct.unpack(f"<{n}{'f' if width == _F32 else 'd'}", data), strict=True):
            if value == value:
                row[number] = value
    return Body(software, config, [Event(t, kind, row, {}) for t, row in zip(times, rows, strict=True)])
