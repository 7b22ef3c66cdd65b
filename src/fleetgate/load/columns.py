"""A segment's records as the rows of each table, in Arrow columns.

Decides what stands in each column; readings.py opens the bodies, plausibility.py judges the values. Texts that repeat
(tenant, vehicle, certificate) travel as dictionaries, so that a row costs an index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fleetgate.catalogue import Catalogue
from fleetgate.judge.envelope import Envelope, open_envelope
from fleetgate.judge.verdict import Outcome, Reject
from fleetgate.load.plausibility import implausible
from fleetgate.load.readings import KINDS, Collector, Readings, Sparse
from fleetgate.load.unknown import UnknownNames
from fleetgate.spool.format import PeerRecord, RejectionRecord
from fleetgate.spool.reader import Message, Segment

UNKNOWN_SIGNAL, IMPLAUSIBLE = 256, 512
"""Flags that load adds to those of `judge.verdict.Flag`; the column `flag_names` spells all of them."""

DAY_MS = 24 * 3600 * 1000
MILLISECONDS = pa.timestamp("ms", tz="UTC")


class Rows(NamedTuple):
    """Rows for one partition of one table; `day` is that of received_at, counted from 1970."""

    table: str
    day: int
    rows: pa.Table


class SegmentRows(NamedTuple):
    """All rows of a segment, in the order in which they are inserted, and how many each table gets.

    `undecodable` are offsets of message records that cannot be opened or whose peer is lost: they have no rows.
    """

    rows: list[Rows]
    counts: dict[str, int]
    undecodable: list[int]
    first_received_at: int | None
    last_received_at: int | None


class _Opened:
    """The messages that could be opened: what is known of each, in lists beside one another."""

    def __init__(self) -> None:
        self.records: list[Message] = []
        self.envelopes: list[Envelope] = []
        self.events: list[int] = []
        self.software: list[str] = []
        self.config: list[str] = []

    def record(self, field: str, dtype: str) -> NDArray[Any]:
        return np.fromiter(map(attrgetter(field), self.records), dtype, len(self.records))

    def envelope(self, field: str, dtype: str) -> NDArray[Any]:
        return np.fromiter(map(attrgetter(field), self.envelopes), dtype, len(self.envelopes))


def segment_rows(segment: Segment, catalogue: Catalogue, names: UnknownNames) -> SegmentRows:
    """The rows of `segment`. Names that the catalogue does not have are admitted to `names`."""
    collector = Collector(catalogue, names)
    messages, undecodable = _open(segment, collector, catalogue)
    source = _Source(segment)
    events, held = _events(source, messages, collector.finish(), catalogue)
    tables = {
        "events": events if not held.any() else events.filter(pa.array(~held)),
        "held_events": events.filter(pa.array(held)),
        "rejections": _rejections(source, segment),
        "raw_messages": _raw_messages(source, messages),
    }
    received = [message.received_at for message in segment.messages]
    received += [rejection.last_at for _, rejection in segment.rejections]
    return SegmentRows(
        [Rows(name, day, rows) for name, table in tables.items() for day, rows in _by_day(table)],
        {name: table.num_rows for name, table in tables.items()},
        undecodable,
        min(received, default=None),
        max(received, default=None),
    )


def _open(segment: Segment, collector: Collector, catalogue: Catalogue) -> tuple[_Opened, list[int]]:
    """The messages in order; their bodies are in `collector`. The judge accepted each of them once: what does not open
    here was damaged, or written by a newer edge."""
    opened = _Opened()
    undecodable: list[int] = []
    for record in segment.messages:
        peer = segment.peers.get(record.peer)
        try:
            envelope = open_envelope(record.raw, json_allowed=True)
            body = catalogue.bodies.open(envelope.enc, envelope.body)
        except Reject:
            peer = None
        if peer is None:
            undecodable.append(record.offset)
            continue
        opened.records.append(record)
        opened.envelopes.append(envelope)
        opened.events.append(collector.add(peer.tenant, body))
        opened.software.append(body.software)
        opened.config.append(body.config)
    return opened, undecodable


class _Source:
    """Where a segment's records come from: its name, and its peers' facts as dictionaries."""

    def __init__(self, segment: Segment) -> None:
        self._peers = list(segment.peers.values())
        self._index = {ref: index for index, ref in enumerate(segment.peers)}
        self._spool = segment.header.spool.hex()
        self._segment = segment.header.segment

    def peers_of(self, records: Sequence[Message | RejectionRecord]) -> NDArray[np.int64]:
        refs = map(attrgetter("peer"), records)
        return np.fromiter(map(self._index.__getitem__, refs), np.int64, len(records))

    def facts(self, peers: NDArray[np.int64], offsets: NDArray[np.uint64]) -> dict[str, pa.Array]:
        """The columns that every table has, for rows of these peers and record offsets."""
        return {
            "tenant": self.fact(peers, lambda peer: peer.tenant),
            "vehicle_id": self.fact(peers, lambda peer: peer.vehicle_id),
            "device_id": self.fact(peers, lambda peer: peer.device_id),
            "certificate_fingerprint": self.fact(peers, lambda peer: peer.fingerprint.hex()),
            "transport": self.fact(peers, lambda peer: peer.transport),
            "edge_id": self.fact(peers, lambda peer: peer.edge_id),
            "spool": _constant(self._spool, len(peers)),
            "segment": pa.array(np.full(len(peers), self._segment, dtype=np.uint64)),
            "record_offset": pa.array(offsets),
        }

    def fact(self, peers: NDArray[np.int64], of: Callable[[PeerRecord], str]) -> pa.Array:
        return _words(list(map(of, self._peers)), peers)


def _events(
    source: _Source, messages: _Opened, readings: Readings, catalogue: Catalogue
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """The rows of `events` and, for each, whether it belongs into `held_events` instead."""
    sizes = np.array(messages.events, dtype=np.int64)
    message = np.repeat(np.arange(len(sizes)), sizes)
    total = len(message)
    sent_at = messages.envelope("sent_at", "i8")[message]
    event_ms = sent_at + readings.at
    wrong = implausible(readings.ids, readings.values, readings.counts, event_ms, message, catalogue)
    wrong_counts = np.bincount(np.repeat(np.arange(total), readings.counts)[wrong], minlength=total)
    flags = messages.record("flags", "u2")[message]
    flags |= np.where(readings.unknown, UNKNOWN_SIGNAL, 0).astype(np.uint16)
    flags |= np.where(wrong_counts > 0, IMPLAUSIBLE, 0).astype(np.uint16)
    peers = source.peers_of(messages.records)[message]
    rows = {
        **source.facts(peers, messages.record("offset", "u8")[message]),
        "event_time": _times(event_ms),
        "kind": _dictionary(readings.kind, KINDS),
        "signal_ids": _lists(readings.counts, readings.ids),
        "signal_values": _lists(readings.counts, readings.values),
        "implausible": _lists(wrong_counts, readings.ids[wrong]),
        "unknown_values": _maps(readings.unknown_values, total),
        "unknown_dropped": pa.array(readings.dropped.astype(np.uint16)),
        "texts": _maps(readings.texts, total),
        "sent_at": _times(sent_at),
        "received_at": _times(messages.record("received_at", "i8")[message]),
        "epoch": pa.array(messages.envelope("epoch", "u4")[message]),
        "seq": pa.array(messages.envelope("seq", "u8")[message]),
        "event_index": pa.array((np.arange(total) - (np.cumsum(sizes) - sizes)[message]).astype(np.uint16)),
        "software": _words(messages.software, message),
        "config": _words(messages.config, message),
        "key_id": pa.array(messages.envelope("kid", "u4")[message]),
        "schema_version": pa.array(messages.envelope("v", "u1")[message]),
        "policy_version": source.fact(peers, lambda peer: peer.policy_version),
        "flags": pa.array(flags),
        "decision": _constant("", total),
    }
    return pa.table(rows), (messages.record("outcome", "u1") == Outcome.HELD)[message]


def _raw_messages(source: _Source, messages: _Opened) -> pa.Table:
    peers = source.peers_of(messages.records)
    held = messages.record("outcome", "u1") == Outcome.HELD
    rows = {
        **source.facts(peers, messages.record("offset", "u8")),
        "epoch": pa.array(messages.envelope("epoch", "u4")),
        "seq": pa.array(messages.envelope("seq", "u8")),
        "sent_at": _times(messages.envelope("sent_at", "i8")),
        "received_at": _times(messages.record("received_at", "i8")),
        "outcome": _dictionary(held, ("accepted", "held")),
        "flags": pa.array(messages.record("flags", "u2")),
        "events": pa.array(np.array(messages.events, dtype=np.uint16)),
        "envelope": pa.array([record.raw for record in messages.records], type=pa.binary()),
        "key_digest": source.fact(peers, lambda peer: peer.key_digest.hex()),
        "key_id": pa.array(messages.envelope("kid", "u4")),
        "address": source.fact(peers, lambda peer: peer.address),
    }
    return pa.table(rows)


def _rejections(source: _Source, segment: Segment) -> pa.Table:
    records = [(offset, record) for offset, record in segment.rejections if record.peer in segment.peers]
    peers = source.peers_of([record for _, record in records])
    ranges = [
        [{"epoch": epoch, "first_seq": first, "last_seq": last} for epoch, first, last in record.ranges]
        for _, record in records
    ]
    rows = {
        **source.facts(peers, np.array([offset for offset, _ in records], dtype=np.uint64)),
        "reason": _words([record.reason for _, record in records], np.arange(len(records))),
        "refused": pa.array([record.count for _, record in records], type=pa.uint64()),
        "first_at": _times(np.array([record.first_at for _, record in records], dtype=np.int64)),
        "received_at": _times(np.array([record.last_at for _, record in records], dtype=np.int64)),
        "ranges": pa.array(ranges, type=_RANGES),
        "address": source.fact(peers, lambda peer: peer.address),
    }
    return pa.table(rows)


_RANGES = pa.list_(pa.struct([("epoch", pa.uint32()), ("first_seq", pa.uint64()), ("last_seq", pa.uint64())]))


def _by_day(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The table's rows by day of received_at: one insert must touch one partition, to have one token."""
    days = table.column("received_at").cast(pa.int64()).to_numpy() // DAY_MS
    found = np.unique(days)
    if len(found) == 1:
        yield int(found[0]), table
        return
    for day in found.tolist():
        yield day, table.filter(pa.array(days == day))


def _words(words: list[str], index: NDArray[np.int64]) -> pa.Array:
    """For each entry of `index` the word at that place, as a dictionary of the different words."""
    places: dict[str, int] = {}
    codes = [places.setdefault(word, len(places)) for word in words]
    return _dictionary(np.array(codes, dtype=np.int32)[index], places)


def _dictionary(codes: NDArray[Any], words: Iterable[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(list(words), type=pa.string()))


def _constant(word: str, length: int) -> pa.Array:
    return _dictionary(np.zeros(length, dtype=np.int32), [word])


def _times(milliseconds: NDArray[np.int64]) -> pa.Array:
    return pa.array(milliseconds).cast(MILLISECONDS)


def _offsets(counts: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))


def _lists(counts: NDArray[np.int64], values: NDArray[Any]) -> pa.Array:
    return pa.ListArray.from_arrays(_offsets(counts), pa.array(values))


def _maps(sparse: Sparse, events: int) -> pa.Array:
    keys = pc.take(pa.array(sparse.names, type=pa.string()), pa.array(sparse.name))
    return pa.MapArray.from_arrays(_offsets(np.bincount(sparse.event, minlength=events)), keys, sparse.value)
