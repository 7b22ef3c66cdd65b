"""Step 6: the body. Decodes it completely and holds every rule of schemas/envelope.md, sections 4 and 5.

The loader opens bodies with the same function, so what the gate accepted and what ClickHouse gets cannot differ.
Plausibility of values is not decided here (`load.plausibility`): an implausible value is stored and flagged.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from fleetgate.judge.envelope import UNDECODABLE
from fleetgate.judge.verdict import Reason, Reject

ROWS_MSGPACK, ROWS_JSON, COLUMNS = 1, 2, 3
MAX_EVENTS, MAX_SIGNALS, MAX_ROWS = 1_000, 256, 8_000
MAX_AT_MS = 30 * 24 * 3600 * 1000
MAX_NAME = 128
MAX_TEXT_BYTES = 256
MAX_LABEL_BYTES = 128
_FINITE = 1.7976931348623157e308  # the largest f64: the bounds below refuse infinities, and NaN compares with neither

Label = Annotated[str, Meta(max_length=MAX_LABEL_BYTES)]
At = Annotated[int, Meta(ge=-MAX_AT_MS, le=0)]
Kind = Literal["sample", "trip_start", "trip_end", "charge_start", "charge_end", "fault", "heartbeat"]
Number = Annotated[int, Meta(ge=1, le=2**16 - 1)]
Name = Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
Finite = Annotated[float, Meta(ge=-_FINITE, le=_FINITE)]
Text = Annotated[str, Meta(max_length=MAX_TEXT_BYTES)]


class Event(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One event of a MessagePack body, named by number or path."""

    at: At
    kind: Kind
    signals: Annotated[dict[Number | Name, Finite], Meta(max_length=MAX_SIGNALS)]
    texts: Annotated[dict[Number | Name, Text], Meta(max_length=MAX_SIGNALS)]


class NumberedEvent(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """The same with numbers only: the common case, which needs no look at names."""

    at: At
    kind: Kind
    signals: Annotated[dict[Number, Finite], Meta(max_length=MAX_SIGNALS)]
    texts: Annotated[dict[Number, Text], Meta(max_length=MAX_SIGNALS)]


class JsonEvent(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """One event of a JSON body, named by path."""

    at: At
    kind: Kind
    signals: Annotated[dict[Name, Finite], Meta(max_length=MAX_SIGNALS)] = {}
    texts: Annotated[dict[Name, Text], Meta(max_length=MAX_SIGNALS)] = {}


AnyEvent = Event | NumberedEvent | JsonEvent


class NumberedRows(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    software: Label
    config: Label
    events: Annotated[list[NumberedEvent], Meta(min_length=1, max_length=MAX_EVENTS)]


class Rows(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    software: Label
    config: Label
    events: Annotated[list[Event], Meta(min_length=1, max_length=MAX_EVENTS)]


class JsonRows(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    software: Label
    config: Label
    events: Annotated[list[JsonEvent], Meta(min_length=1, max_length=MAX_EVENTS)]


class Column(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """`type` 1 is f32, 2 is f64; `data` holds n little-endian values."""

    type: Literal[1, 2]
    data: bytes


class Columns(Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """`at` holds n little-endian i32 (ms relative to sent_at); `columns` maps signal number to values."""

    software: Label
    config: Label
    kind: Kind
    n: Annotated[int, Meta(ge=1, le=MAX_ROWS)]
    at: bytes
    columns: Annotated[dict[Number, Column], Meta(max_length=MAX_SIGNALS)]


AnyRows = NumberedRows | Rows | JsonRows
Body = AnyRows | Columns
DTYPE_OF: dict[int, np.dtype[np.float32] | np.dtype[np.float64]] = {1: np.dtype("<f4"), 2: np.dtype("<f8")}

_STRICT: Any = {"array_like": True, "frozen": True, "gc": False, "forbid_unknown_fields": True}
_decode_numbered = msgspec.msgpack.Decoder(NumberedRows).decode
_decode_rows = msgspec.msgpack.Decoder(Rows).decode
_decode_json = msgspec.json.Decoder(JsonRows).decode
_decode_columns = msgspec.msgpack.Decoder(Columns).decode
_encode = msgspec.msgpack.Encoder().encode


class Bodies:
    """Opens bodies; `numbers` maps the catalogue's paths to numbers."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._numbers = numbers
        self._decode_named = _named_decoder(numbers)

    def open(self, enc: int, data: bytes) -> Body:
        """The validated body. Raises Reject(malformed_body)."""
        body: Body
        try:
            if enc == ROWS_MSGPACK:
                body = self._rows(data)
            elif enc == COLUMNS:
                body = _open_columns(data)
            else:
                body = self._json(data)
        except UNDECODABLE as error:
            raise _malformed(str(error)) from None
        if not (body.software.isascii() and body.config.isascii()):
            _check_labels(body)
        return body

    def _rows(self, data: bytes) -> NumberedRows | Rows:
        body: NumberedRows | Rows
        try:
            body = _decode_numbered(data)
        except msgspec.ValidationError:
            body = self._named(data)
        # Decoding into a dict hides a repeated key. Bytes that equal the encoding of what was decoded repeat none
        # (0.1 us an event); others (f32 or integer values) are counted the slow way.
        if _encode(body) != data:
            _check_no_repeated_key(data)
        _check_events(body.events)
        return body

    def _named(self, data: bytes) -> Rows:
        try:
            return self._decode_named(data)
        except msgspec.ValidationError:
            body = _decode_rows(data)
            _check_names(body.events, self._numbers)
            return body

    def _json(self, data: bytes) -> JsonRows:
        body = _decode_json(data)
        _check_names(body.events, self._numbers)
        _check_events(body.events)
        return body


def _malformed(where: str) -> Reject:
    return Reject(Reason.MALFORMED_BODY, True, where)


def _place(events: list[Any], event: AnyEvent) -> int:
    """Only looked for in a body that is refused: the first like it, which is refused as well."""
    return events.index(event)


def _named_decoder(paths: Collection[str]) -> Callable[[bytes], Rows]:
    """For rows whose signals are all named by paths of the catalogue. msgspec finds such a name without making a string
    of it, and no name is left to be looked at: 0.6 us an event of 8 signals, where any name takes 1.1."""
    path: Any = Literal[tuple(paths)]
    signals = Annotated[dict[path, Finite], Meta(max_length=MAX_SIGNALS)]
    texts = Annotated[dict[path, Text], Meta(max_length=MAX_SIGNALS)]
    fields = [("at", At), ("kind", Kind), ("signals", signals), ("texts", texts)]
    event: Any = msgspec.defstruct("NamedEvent", fields, **_STRICT)
    events = Annotated[list[event], Meta(min_length=1, max_length=MAX_EVENTS)]
    rows: Any = msgspec.defstruct("NamedRows", [("software", Label), ("config", Label), ("events", events)], **_STRICT)
    return msgspec.msgpack.Decoder(rows).decode


def _check_events(events: list[NumberedEvent] | list[Event] | list[JsonEvent]) -> None:
    """A sample has a signal, and texts are short in bytes; msgspec counts characters."""
    for event in events:
        if not event.signals and event.kind == "sample":
            raise _malformed(f"event {_place(events, event)}: a sample without a signal")
        if event.texts:
            for text in event.texts.values():
                if not text.isascii() and len(text.encode()) > MAX_TEXT_BYTES:
                    raise _malformed(f"event {_place(events, event)}: a text of more than {MAX_TEXT_BYTES} bytes")


def _check_labels(body: Body) -> None:
    """As for texts: bytes, not characters."""
    if max(len(body.software.encode()), len(body.config.encode())) > MAX_LABEL_BYTES:
        raise _malformed(f"software or config has more than {MAX_LABEL_BYTES} bytes")


def _check_names(events: list[Event] | list[JsonEvent], numbers: Mapping[str, int]) -> None:
    known = numbers.keys()
    for event in events:
        if not event.signals.keys() <= known:
            _check_keys(event.signals, numbers)
        if event.texts and not event.texts.keys() <= known:
            _check_keys(event.texts, numbers)


def _check_keys(keys: Mapping[int | str, object] | Mapping[str, object], numbers: Mapping[str, int]) -> None:
    """Unknown names must be printable ASCII, and no signal may stand there by path and by number."""
    seen: set[int | str] = set()
    for key in keys:
        if isinstance(key, str) and not (key.isascii() and key.isprintable()):
            raise _malformed(f"the signal {key!a} is not printable ASCII")
        seen.add(numbers.get(key, key) if isinstance(key, str) else key)
    if len(seen) != len(keys):
        raise _malformed("a signal stands in one event by its path and by its number")


def _open_columns(data: bytes) -> Columns:
    body = _decode_columns(data)
    if len(body.at) != 4 * body.n:
        raise _malformed(f"`at` has {len(body.at)} bytes; n = {body.n} rows are {4 * body.n}")
    if not body.columns and body.kind == "sample":
        raise _malformed("a sample without a column")
    # The lower bound needs no look: an i32 of milliseconds reaches back 24.8 days, less than the 30 allowed.
    if np.frombuffer(body.at, dtype="<i4").max() > 0:
        raise _malformed("a row lies behind sent_at: `at` is above 0")
    for number, column in body.columns.items():
        dtype = DTYPE_OF[column.type]
        if len(column.data) != dtype.itemsize * body.n:
            due = dtype.itemsize * body.n
            raise _malformed(f"column {number} has {len(column.data)} bytes; n = {body.n} rows of its type are {due}")
        if np.isinf(np.frombuffer(column.data, dtype=dtype)).any():
            raise _malformed(f"column {number} has an infinite value")
    if _encode(body) != data:
        _check_no_repeated_column(data)
    return body


class _RawEvent(Struct, array_like=True, gc=False):
    at: msgspec.Raw
    kind: msgspec.Raw
    signals: msgspec.Raw
    texts: msgspec.Raw


class _RawRows(Struct, array_like=True, gc=False):
    software: msgspec.Raw
    config: msgspec.Raw
    events: list[_RawEvent]


class _RawColumns(Struct, array_like=True, gc=False):
    software: msgspec.Raw
    config: msgspec.Raw
    kind: msgspec.Raw
    n: msgspec.Raw
    at: msgspec.Raw
    columns: msgspec.Raw


_decode_raw_rows = msgspec.msgpack.Decoder(_RawRows).decode
_decode_raw_columns = msgspec.msgpack.Decoder(_RawColumns).decode
_decode_keys = msgspec.msgpack.Decoder(dict[Number | Name, msgspec.Raw]).decode


def _check_no_repeated_key(data: bytes) -> None:
    for place, event in enumerate(_decode_raw_rows(data).events):
        for keys in (bytes(event.signals), bytes(event.texts)):
            if _entries(keys) != len(_decode_keys(keys)):
                raise _malformed(f"event {place}: a signal stands in it twice")


def _check_no_repeated_column(data: bytes) -> None:
    columns = bytes(_decode_raw_columns(data).columns)
    if _entries(columns) != len(_decode_keys(columns)):
        raise _malformed("a column stands there twice")


def _entries(encoded_map: bytes) -> int:
    """The number of entries that a MessagePack map announces (fixmap, map 16, map 32)."""
    first = encoded_map[0]
    if first == 0xDE:
        return int.from_bytes(encoded_map[1:3], "big")
    if first == 0xDF:
        return int.from_bytes(encoded_map[1:5], "big")
    return first & 0x0F
