"""A segment's records as the rows of each table, in Arrow columns.

Decides what stands in each column; opening.py opens the messages, plausibility.py judges the values, arrow.py makes
the columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fleetgate.catalogue import Catalogue
from fleetgate.judge.verdict import Outcome
from fleetgate.load.arrow import DAY_MS, by_day, chunks, constant, dictionary, joined, lists, maps, times, words
from fleetgate.load.opening import Opened, open_messages
from fleetgate.load.pulses import Heard, pulses_of
from fleetgate.load.ranges import OUTCOMES, Received, ranges_of
from fleetgate.load.readings import KINDS
from fleetgate.load.rowshash import FORMS, rows_hash
from fleetgate.load.unknown import UnknownNames
from fleetgate.spool.format import PeerRecord
from fleetgate.spool.reader import Segment

UNKNOWN_SIGNAL, IMPLAUSIBLE = 256, 512
"""Flags that load adds to those of `judge.verdict.Flag`; the column `flag_names` spells all of them."""


class Rows(NamedTuple):
    """Rows for one partition of one table; `day` is that of received_at, counted from 1970."""

    table: str
    day: int
    rows: pa.Table


class SegmentRows(NamedTuple):
    """All rows of a segment, in the order in which they are inserted, how many each table gets, and their hash. Neither
    is kept of `pulses`: they are for the watch and prove nothing.

    `undecodable` are offsets of message records that cannot be opened or whose peer is lost: they have no rows.
    """

    rows: list[Rows]
    counts: dict[str, int]
    hashes: dict[str, str]
    undecodable: list[int]
    first_received_at: int | None
    last_received_at: int | None


def segment_rows(segment: Segment, catalogue: Catalogue, names: UnknownNames) -> SegmentRows:
    """The rows of `segment`. Names that the catalogue does not have are admitted to `names`."""
    opened = open_messages(segment, catalogue, names)
    source = _Source(segment)
    messages = _Messages(segment, opened)
    events, held = _events(source, messages, opened)
    tables = {
        "events": events if not held.any() else events.filter(pa.array(~held)),
        "held_events": events.filter(pa.array(held)) if held.any() else events.slice(0, 0),
        "rejections": _rejections(source, segment),
        "raw_messages": _raw_messages(source, messages),
        "received_ranges": _received_ranges(source, segment, messages),
    }
    pulses = _pulses(source, messages, opened)
    received = [rejection.last_at for _, rejection in segment.rejections]
    if len(segment.messages):
        received += [int(segment.messages.received_at.min()), int(segment.messages.received_at.max())]
    return SegmentRows(
        [Rows(name, day, rows) for name, table in [*tables.items(), ("pulses", pulses)] for day, rows in by_day(table)],
        {name: table.num_rows for name, table in tables.items()},
        {name: rows_hash(name, tables[name]) for name in FORMS},
        segment.messages.offset[opened.undecodable].tolist(),
        min(received, default=None),
        max(received, default=None),
    )


def held_devices(segment: Segment) -> set[tuple[str, str]]:
    """(tenant, device id) of whose messages some were held; their rows may be fewer."""
    held = np.unique(segment.messages.peer[segment.messages.outcome == Outcome.HELD]).tolist()
    peers = [segment.peers[ref] for ref in held if ref in segment.peers]
    return {(peer.tenant, peer.device_id) for peer in peers}


class _Messages:
    """The opened messages, piece by piece: what is known of each, in arrays beside one another."""

    def __init__(self, segment: Segment, opened: Opened) -> None:
        records, pieces = segment.messages, opened.pieces
        place = joined([piece.place for piece in pieces], "i8")
        self.offset = records.offset[place]
        self.peer = records.peer[place]
        self.received_at = records.received_at[place]
        self.held = records.outcome[place] == Outcome.HELD
        self.flags = records.flags[place]
        self.raw = list(map(records.raw.__getitem__, place.tolist()))
        self.events = joined([piece.events for piece in pieces], "i8")
        self.version = joined([piece.version for piece in pieces], "u1")
        self.kid = joined([piece.kid for piece in pieces], "u4")
        self.epoch = joined([piece.epoch for piece in pieces], "u4")
        self.seq = joined([piece.seq for piece in pieces], "u8")
        self.sent_at = joined([piece.sent_at for piece in pieces], "i8")
        self.software = joined([piece.software for piece in pieces], "i4")
        self.config = joined([piece.config for piece in pieces], "i4")


class _Source:
    """Where a segment's records come from: its name, and its peers' facts as dictionaries."""

    def __init__(self, segment: Segment) -> None:
        self._peers = [segment.peers[ref] for ref in sorted(segment.peers)]
        self._refs = np.array(sorted(segment.peers), dtype=np.int64)
        self._spool = segment.header.spool.hex()
        self._segment = segment.header.segment

    def index(self, refs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the peers of these refs stand among the segment's."""
        return np.searchsorted(self._refs, refs)

    def facts(self, peers: NDArray[np.int64], offsets: NDArray[np.int64]) -> dict[str, pa.Array]:
        """The columns that every table has, for rows of these peers and record offsets."""
        return {
            "tenant": self.fact(peers, lambda peer: peer.tenant),
            "vehicle_id": self.fact(peers, lambda peer: peer.vehicle_id),
            "device_id": self.fact(peers, lambda peer: peer.device_id),
            "certificate_fingerprint": self.fact(peers, lambda peer: peer.fingerprint.hex()),
            "transport": self.fact(peers, lambda peer: peer.transport),
            "edge_id": self.fact(peers, lambda peer: peer.edge_id),
            "spool": constant(self._spool, len(peers)),
            "segment": pa.array(np.full(len(peers), self._segment, dtype=np.uint64)),
            "record_offset": pa.array(offsets.astype(np.uint64)),
        }

    def fact(self, peers: NDArray[np.int64], of: Callable[[PeerRecord], str]) -> pa.Array:
        return words(list(map(of, self._peers)), peers)


def _events(source: _Source, messages: _Messages, opened: Opened) -> tuple[pa.Table, NDArray[np.bool_]]:
    """The rows of `events` and, for each, whether it belongs into `held_events` instead."""
    pieces = opened.pieces
    readings = [piece.readings for piece in pieces]
    message = np.repeat(np.arange(len(messages.events)), messages.events)
    total = len(message)
    sent_at = messages.sent_at[message]
    first = np.cumsum(messages.events) - messages.events
    flags = messages.flags[message]
    flags[joined([some.unknown for some in readings], "?")] |= UNKNOWN_SIGNAL
    flags[joined([piece.wrong_counts for piece in pieces], "i8") > 0] |= IMPLAUSIBLE
    peers = source.index(messages.peer)[message]
    rows = {
        **source.facts(peers, messages.offset[message]),
        "event_time": times(sent_at + joined([some.at for some in readings], "i8")),
        "kind": dictionary(joined([some.kind for some in readings], "i1"), KINDS),
        "signal_ids": chunks([lists(some.counts, some.ids) for some in readings], pa.list_(pa.uint16())),
        "signal_values": chunks([lists(some.counts, some.values) for some in readings], pa.list_(pa.float64())),
        "implausible": chunks([lists(piece.wrong_counts, piece.wrong_ids) for piece in pieces], pa.list_(pa.uint16())),
        "unknown_values": chunks(
            [maps(some.unknown_values, len(some.at)) for some in readings], pa.map_(pa.string(), pa.float64())
        ),
        "unknown_dropped": pa.array(joined([some.dropped for some in readings], "u2")),
        "texts": chunks([maps(some.texts, len(some.at)) for some in readings], pa.map_(pa.string(), pa.string())),
        "sent_at": times(sent_at),
        "received_at": times(messages.received_at[message]),
        "epoch": pa.array(messages.epoch[message]),
        "seq": pa.array(messages.seq[message]),
        "event_index": pa.array((np.arange(total) - first[message]).astype(np.uint16)),
        "software": dictionary(messages.software[message], opened.words),
        "config": dictionary(messages.config[message], opened.words),
        "key_id": pa.array(messages.kid[message]),
        "schema_version": pa.array(messages.version[message]),
        "policy_version": source.fact(peers, lambda peer: peer.policy_version),
        "flags": pa.array(flags),
        "decision": constant("", total),
    }
    return pa.table(rows), messages.held[message]


def _raw_messages(source: _Source, messages: _Messages) -> pa.Table:
    peers = source.index(messages.peer)
    rows = {
        **source.facts(peers, messages.offset),
        "epoch": pa.array(messages.epoch),
        "seq": pa.array(messages.seq),
        "sent_at": times(messages.sent_at),
        "received_at": times(messages.received_at),
        "outcome": dictionary(messages.held, ("accepted", "held")),
        "flags": pa.array(messages.flags),
        "events": pa.array(messages.events.astype(np.uint16)),
        "envelope": pa.array(messages.raw, type=pa.binary()),
        "key_digest": source.fact(peers, lambda peer: peer.key_digest.hex()),
        "key_id": pa.array(messages.kid),
        "address": source.fact(peers, lambda peer: peer.address),
    }
    return pa.table(rows)


def _rejections(source: _Source, segment: Segment) -> pa.Table:
    records = [(offset, record) for offset, record in segment.rejections if record.peer in segment.peers]
    peers = source.index(np.array([record.peer for _, record in records], dtype=np.int64))
    ranges = [
        [{"epoch": epoch, "first_seq": first, "last_seq": last} for epoch, first, last in record.ranges]
        for _, record in records
    ]
    rows = {
        **source.facts(peers, np.array([offset for offset, _ in records], dtype=np.int64)),
        "reason": words([record.reason for _, record in records], np.arange(len(records))),
        "disorder": words([record.disorder for _, record in records], np.arange(len(records))),
        "refused": pa.array([record.count for _, record in records], type=pa.uint64()),
        "first_at": times(np.array([record.first_at for _, record in records], dtype=np.int64)),
        "received_at": times(np.array([record.last_at for _, record in records], dtype=np.int64)),
        "ranges": pa.array(ranges, type=_RANGES),
        "address": source.fact(peers, lambda peer: peer.address),
    }
    return pa.table(rows)


def _received_ranges(source: _Source, segment: Segment, messages: _Messages) -> pa.Table:
    received = Received(
        messages.peer, messages.held, messages.epoch, messages.seq, messages.received_at, messages.offset
    )
    ranges = ranges_of(segment, received)
    facts = source.facts(source.index(ranges.peer), ranges.offset)
    names = ("tenant", "vehicle_id", "device_id", "spool", "segment", "record_offset")
    rows = {
        **{name: facts[name] for name in names},
        "epoch": pa.array(ranges.epoch),
        "first_seq": pa.array(ranges.first_seq),
        "last_seq": pa.array(ranges.last_seq),
        "outcome": dictionary(ranges.outcome, OUTCOMES),
        "reason": words(ranges.reason, np.arange(len(ranges.reason))),
        "first_received_at": times(ranges.first_received_at),
        "received_at": times(ranges.received_at),
    }
    return pa.table(rows)


def _pulses(source: _Source, messages: _Messages, opened: Opened) -> pa.Table:
    found = pulses_of(
        Heard(
            messages.peer,
            messages.held,
            messages.software,
            messages.config,
            messages.epoch,
            messages.seq,
            messages.sent_at,
            messages.received_at,
            messages.received_at // DAY_MS,
            messages.flags,
            messages.events,
            messages.offset,
        ),
        opened.pieces,
    )
    last = found.last
    facts = source.facts(source.index(messages.peer[last]), messages.offset[found.first])
    counts = ("messages", "late", "events", "faults", "unknown", "readings", "implausible")
    rows = {
        **{name: facts[name] for name in ("tenant", "vehicle_id", "device_id", "spool", "segment", "record_offset")},
        "received_at": times(messages.received_at[last]),
        "event_time": times(found.event_ms),
        "outcome": dictionary(messages.held[last], ("accepted", "held")),
        "software": dictionary(messages.software[last], opened.words),
        "config": dictionary(messages.config[last], opened.words),
        "epoch": pa.array(messages.epoch[last]),
        "first_seq": pa.array(found.first_seq.astype(np.uint64)),
        "last_seq": pa.array(found.last_seq.astype(np.uint64)),
        **{name: pa.array(getattr(found, name).astype(np.uint32)) for name in counts},
        "delay_ms": pa.array(found.delay_ms),
        "signal_ids": lists(found.signals, found.ids),
        "signal_values": lists(found.signals, found.values),
    }
    return pa.table(rows)


_RANGES = pa.list_(pa.struct([("epoch", pa.uint32()), ("first_seq", pa.uint64()), ("last_seq", pa.uint64())]))
