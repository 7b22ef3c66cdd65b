"""One SHA-256 of all rows that a segment has in a table, the same in whatever order ClickHouse keeps them.

Decides the canonical form (docs/explanation/proof-of-origin.md), twice: `rows_hash` over the columns that load is about
to insert, `hash_query` as SQL over what is stored, so that ClickHouse's answer needs no code of this project. What the
hash is compared with is decided by `proof`.

The rows stand in the order of their places (record_offset, event_index), which no two rows of a segment share. Column
by column they are one sequence of bytes with one SHA-256; the SHA-256 of those is the hash. A sum of hashes of single
rows would need no order, but is a weaker commitment (docs/adr/0004), and costs calls for each row: 0.6 to 0.8 us for
hashing and adding alone, 0.8 to 1.3 with joining a row's bytes, where all of this is 0.3 us an event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

DOMAIN = "fleetgate rows 1 "
_MOST_KEYS = 2**62


class Form(NamedTuple):
    """The columns of a table by kind, in the order in which they are hashed.

    `places` give the rows' order. `names` are texts that repeat, hashed together row by row; of two with a stroke
    between them the second came later: where it is empty only the first is hashed, as it was then. The selector
    (spool, segment) stands in no column of the hash. Of `maps` it says whether the values are numbers.
    """

    places: tuple[str, ...]
    names: tuple[str, ...]
    numbers: tuple[str, ...]
    times: tuple[str, ...]
    lists: tuple[str, ...] = ()
    maps: Mapping[str, bool] = MappingProxyType({})
    texts: tuple[str, ...] = ()


_SOURCE = ("tenant", "vehicle_id", "device_id", "certificate_fingerprint", "transport", "edge_id")
_EVENT = Form(
    places=("record_offset", "event_index"),
    names=(*_SOURCE, "kind", "software", "config", "policy_version", "decision"),
    numbers=("epoch", "seq", "key_id", "schema_version", "flags", "unknown_dropped"),
    times=("event_time", "sent_at", "received_at"),
    lists=("signal_ids", "signal_values", "implausible"),
    maps=MappingProxyType({"unknown_values": True, "texts": False}),
)
FORMS = {
    "events": _EVENT,
    "held_events": _EVENT,
    "rejections": Form(
        places=("record_offset",),
        names=(*_SOURCE, "reason/disorder", "address"),
        numbers=("refused",),
        times=("first_at", "received_at"),
        lists=("ranges.epoch", "ranges.first_seq", "ranges.last_seq"),
    ),
    "raw_messages": Form(
        places=("record_offset",),
        names=(*_SOURCE, "outcome", "key_digest", "address"),
        numbers=("epoch", "seq", "flags", "events", "key_id"),
        times=("sent_at", "received_at"),
        texts=("envelope",),
    ),
}


def rows_hash(table: str, rows: pa.Table) -> str:
    """Hex; empty where there are no rows."""
    if not rows.num_rows:
        return ""
    form = FORMS[table]
    order = _order([_numbers(rows, name) for name in form.places])
    columns = [_sequence_of(_names(rows, form.names), order)]
    columns += [_sequence_of(_numbers(rows, name), order) for name in (*form.places, *form.numbers)]
    columns += [_sequence_of(rows.column(name).cast(pa.int64()).to_numpy(), order) for name in form.times]
    for name in form.lists:
        array, _, field = name.partition(".")
        column = _whole(rows.column(array))
        values = column.values if not field else column.values.field(field)
        columns += _sequences(column, [values], order)
    for name in form.maps:
        column = _whole(rows.column(name))
        columns += _sequences(column, [column.keys, column.items], order)
    for name in form.texts:
        column = _whole(rows.column(name))
        columns += _texts(column.take(pa.array(block)) for block in _blocks(order))
    return hashlib.sha256(f"{DOMAIN}{table}\n".encode() + b"".join(columns)).hexdigest()


_Order = NDArray[np.int64]

BLOCK_ROWS = 8_192
"""Brought into order and hashed at once: what is in the processor's cache is not written to fresh pages."""


def _order(places: list[NDArray[Any]]) -> _Order:
    key = places[0].astype(np.int64)
    for place in places[1:]:
        key = (key << 16) + place  # of event_index, a UInt16; offsets are u32
    return np.argsort(key, kind="stable")


def _blocks(order: _Order) -> Iterator[_Order]:
    return (order[start : start + BLOCK_ROWS] for start in range(0, len(order), BLOCK_ROWS))


def _sequence_of(values: NDArray[Any], order: _Order) -> bytes:
    digest = hashlib.sha256()
    for block in _blocks(order):
        digest.update(values[block].data)
    return digest.digest()


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)


def _numbers(rows: pa.Table, name: str) -> NDArray[Any]:
    numbers: NDArray[Any] = rows.column(name).to_numpy()
    return numbers


def _names(rows: pa.Table, names: tuple[str, ...]) -> NDArray[np.void]:
    """32 bytes for each row. Rows with the same texts are hashed once: there are few of them in a segment."""
    columns = [_words(rows, name) for name in names]
    key, keys = np.zeros(rows.num_rows, np.int64), 1
    for column in columns:
        if keys * len(column.dictionary) > _MOST_KEYS:
            key, keys = _numbered(key)
        key, keys = key * len(column.dictionary) + column.indices.to_numpy(), keys * len(column.dictionary)
    key, keys = _numbered(key)
    first = np.empty(keys, np.int64)
    first[key[::-1]] = np.arange(len(key))[::-1]
    texts = [column.take(pa.array(first)).cast(pa.string()).to_pylist() for column in columns]
    digests = [hashlib.sha256(b"".join(map(_with_length, row))).digest() for row in zip(*texts, strict=True)]
    return np.frombuffer(b"".join(digests), "V32")[key]


def _words(rows: pa.Table, name: str) -> Any:
    """The dictionary of a text that repeats."""
    first, _, second = name.partition("/")
    words = _whole(rows.column(first).unify_dictionaries())
    if not second:
        return words
    pairs = zip(words.to_pylist(), rows.column(second).to_pylist(), strict=True)
    return pa.array([f"{word}/{more}" if more else word for word, more in pairs], type=pa.string()).dictionary_encode()


def _numbered(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The different keys numbered from 0, and how many there are."""
    encoded = pa.array(keys).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)


def _with_length(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(4, "little") + data


def _sequences(column: Any, values: list[pa.Array], order: _Order) -> list[bytes]:
    """Of a column of lists: the digest of their lengths, then of each of `values`, list behind list."""
    offsets = column.offsets.to_numpy()
    counts = np.diff(offsets).astype("<u4")
    digests = [_sequence_of(counts, order)]
    for value in values:
        if pa.types.is_string(value.type):
            digests += _texts(value.take(pa.array(block)) for block in _entries(offsets, counts, order))
        else:
            numbers, digest = value.to_numpy(), hashlib.sha256()
            for block in _entries(offsets, counts, order):
                digest.update(numbers[block].data)
            digests.append(digest.digest())
    return digests


def _entries(offsets: NDArray[np.int32], counts: NDArray[np.uint32], order: _Order) -> Iterator[_Order]:
    """Where the entries of the lists stand, block by block."""
    for block in _blocks(order):
        lengths = counts[block].astype(np.int64)
        ends: NDArray[np.int64] = lengths.cumsum()
        starts = offsets[block].astype(np.int64) - ends + lengths
        yield np.repeat(starts, lengths) + np.arange(int(ends[-1]))


def _texts(parts: Iterable[pa.Array]) -> list[bytes]:
    """Of strings or bytes: the digest of their lengths and that of their bytes."""
    lengths, content = hashlib.sha256(), hashlib.sha256()
    for part in parts:
        if not len(part):
            continue
        offsets = np.frombuffer(part.buffers()[1], np.int32)[part.offset : part.offset + len(part) + 1]
        lengths.update(np.diff(offsets).astype("<u4").data)
        if part.buffers()[2] is not None:
            content.update(memoryview(part.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
    return [lengths.digest(), content.digest()]


def hash_query(table: str, without: str = "", source: str = "") -> str:
    """A SELECT of (segment, number of rows, their hash) for the parameters `spool`, `first` and `last`;
    `without` is a condition for rows that are left out, `source` a subquery that stands in for the table.

    What a subquery has sorted is one stream, and is aggregated in its order, in however many threads ClickHouse works;
    a reader may not set their number.
    """
    form = FORMS[table]
    kept = f" AND NOT ({without})" if without else ""
    names = ", ".join(f"{_LENGTH(text)}, toString({text})" for text in map(_in_sql, form.names))
    parts = [_sequence(f"concat(SHA256(concat({names})), '')")]
    parts += [_sequence(_FIXED(name)) for name in (*form.places, *form.numbers)]
    parts += [_sequence(_FIXED(f"toUnixTimestamp64Milli({name})")) for name in form.times]
    for name in form.lists:
        parts += [_sequence(_LENGTH(name)), _flattened(name, _FIXED("x"))]
    for name, fixed in form.maps.items():
        keys, values = f"mapKeys({name})", f"mapValues({name})"
        parts += [_sequence(_LENGTH(keys)), _flattened(keys, _LENGTH("x")), _flattened(keys, "toString(x)")]
        parts += (
            [_flattened(values, _FIXED("x"))] if fixed else [_flattened(values, _LENGTH("x")), _flattened(values, "x")]
        )
    for name in form.texts:
        parts += [_sequence(_LENGTH(name)), _sequence(name)]
    return (
        f"SELECT segment, count(), lower(hex(SHA256(concat('{DOMAIN}{table}\\n', {', '.join(parts)})))) "  # noqa: S608  tables and columns of ours
        f"FROM (SELECT * FROM {source or table} WHERE spool = {{spool:String}} "
        f"AND segment >= {{first:UInt64}} AND segment <= {{last:UInt64}}{kept} "
        f"ORDER BY segment, {', '.join(form.places)}) "
        "GROUP BY segment ORDER BY segment"
    )


# arrayStringConcat cuts the zeros at the end of a FixedString; concat makes a String of it and keeps them.
_FIXED: Callable[[str], str] = "concat(reinterpretAsFixedString({}), '')".format
_LENGTH: Callable[[str], str] = "concat(reinterpretAsFixedString(toUInt32(length({}))), '')".format


def _in_sql(name: str) -> str:
    first, _, second = name.partition("/")
    return f"if({second} = '', {first}, concat({first}, '/', {second}))" if second else first


def _sequence(value: str) -> str:
    return f"SHA256(arrayStringConcat(groupArray({value})))"


def _flattened(column: str, each: str) -> str:
    return f"SHA256(arrayStringConcat(arrayMap(x -> {each}, groupArrayArray({column}))))"
