"""A segment's messages opened, in pieces: arrays of a few hundred thousand readings each.

Decides which road a message takes: together with all that look like it (layout.py), or by itself (readings.py). Both
give the same arrays. The judge accepted each message once: what does not open here was damaged, or written by a newer
edge. A piece's readings are judged for plausibility while they are in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetgate.catalogue import Catalogue
from fleetgate.judge.body import Body
from fleetgate.judge.envelope import Envelope, open_envelope
from fleetgate.judge.verdict import Reject
from fleetgate.load.layout import Layout, NoLayout, Numbers
from fleetgate.load.plausibility import implausible, implausible_alike
from fleetgate.load.readings import NO_NUMBERS, NO_TEXTS, Collector, Numbering, Readings
from fleetgate.load.unknown import UnknownNames
from fleetgate.spool.reader import Segment

PIECE_READINGS = 256 * 1024
PIECE_BYTES = 1024 * 1024
"""Of messages. A piece's arrays (2 MiB for each number of 8 bytes) stay in the cache, and the allocator hands the same
memory out again; arrays of a whole segment were 130 MiB more at the highest, and new pages each time."""

ALIKE = 32
"""A layout costs as much as opening 13 messages of one event by themselves, 28 of 60 events, 2 of columns."""

FEW = 16
"""Where a layout holds for less than one message of so many, they are left to be opened one by one: each piece is a
block of its own to ClickHouse."""

MISSES = 16
"""So many layouts of a segment may hold for few messages; then the rest is opened one by one. 16 are 16 ms at most."""


class Piece(NamedTuple):
    """Some of a segment's messages. One entry for each message: `place` (index in the segment's messages) to `config`
    (indexes into `Opened.words`). `readings` are their events'; `wrong_counts` has the number of implausible readings
    of each event, `wrong_ids` their signals."""

    place: NDArray[np.int64]
    events: NDArray[np.int64]
    version: NDArray[np.uint8]
    kid: NDArray[np.uint32]
    epoch: NDArray[np.uint32]
    seq: NDArray[np.uint64]
    sent_at: NDArray[np.int64]
    software: NDArray[np.int32]
    config: NDArray[np.int32]
    readings: Readings
    wrong_counts: NDArray[np.int64]
    wrong_ids: NDArray[np.uint16]


class Opened(NamedTuple):
    """`words` are those that software and config of the pieces point to; `undecodable` places in the segment's
    messages, ascending."""

    pieces: list[Piece]
    words: list[str]
    undecodable: list[int]


def open_messages(segment: Segment, catalogue: Catalogue, names: UnknownNames) -> Opened:
    """Every message of the segment is in one piece or undecodable."""
    return _Opening(segment, catalogue, names).run()


class _Opening:
    def __init__(self, segment: Segment, catalogue: Catalogue, names: UnknownNames) -> None:
        self._segment = segment
        self._raw = segment.messages.raw
        self._lengths = np.fromiter(map(len, self._raw), np.int64, len(self._raw))
        self._catalogue = catalogue
        self._numbering = Numbering(catalogue)
        self._names = names
        self._pieces: list[Piece] = []
        self._words = _Words()
        self._word = self._words.__getitem__
        self._undecodable: list[int] = []
        self._misses = 0

    def run(self) -> Opened:
        known = np.isin(self._segment.messages.peer, np.fromiter(self._segment.peers, np.int64))
        self._undecodable += np.flatnonzero(~known).tolist()
        places = np.flatnonzero(known)
        lengths = self._lengths[places]
        order = np.argsort(lengths, kind="stable")
        alike = np.split(places[order], np.flatnonzero(np.diff(lengths[order])) + 1)
        single = [self._take_alike(group) for group in alike]
        self._take_single(np.sort(np.concatenate(single)))
        return Opened(self._pieces, list(self._words), sorted(self._undecodable))

    def _take_alike(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Takes what has a layout among messages of one length; returns the others."""
        refused: list[NDArray[np.int64]] = []
        while len(places) >= ALIKE and self._misses < MISSES:
            try:
                left = self._take_like_first(places)
            except (Reject, NoLayout):
                left = places
            if len(places) - len(left) < max(ALIKE, len(places) // FEW):
                self._misses += 1
            if len(left) and left[0] == places[0]:  # this one is by itself, whatever is like it
                refused.append(left[:1])
                left = left[1:]
            places = left
        return np.concatenate([*refused, places])

    def _take_like_first(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Raises Reject, NoLayout."""
        raw = self._raw[int(places[0])]
        envelope, body = self._open(raw)
        layout = Layout(raw, envelope, body, self._numbering)
        words = (self._word(body.software), self._word(body.config))
        left = []
        for some in _split(places, min(PIECE_BYTES // len(raw), PIECE_READINGS // max(1, len(layout.ids)))):
            joined = np.frombuffer(b"".join(map(self._raw.__getitem__, some.tolist())), np.uint8)
            numbers = layout.read(joined.reshape(len(some), len(raw)))
            good = numbers.good
            if np.count_nonzero(good) * FEW < len(some):
                left.append(some)
                continue
            left.append(some[~good])
            self._pieces.append(self._alike_piece(layout, envelope.v, words, some[good], numbers.only_good()))
        return np.concatenate(left)

    def _alike_piece(
        self, layout: Layout, version: int, words: tuple[int, int], places: NDArray[np.int64], numbers: Numbers
    ) -> Piece:
        count, events = len(places), len(layout.kind)
        ids, counts = np.tile(layout.ids, count), np.tile(layout.counts, count)
        event_ms = numbers.sent_at[:, None] + numbers.at
        if layout.regular is not None:
            alike = numbers.values.reshape(count, events, -1)
            wrong = implausible_alike(layout.regular, alike, event_ms, self._catalogue).reshape(-1)
        else:
            message = np.repeat(np.arange(count), events)
            values = numbers.values.reshape(-1)
            wrong = implausible(ids, values, counts, event_ms.reshape(-1), message, self._catalogue)
        readings = Readings(
            numbers.at.reshape(-1),
            np.tile(layout.kind, count),
            counts,
            np.zeros(count * events, np.bool_),
            np.zeros(count * events, np.int64),
            ids,
            numbers.values.reshape(-1),
            NO_NUMBERS,
            NO_TEXTS,
        )
        return Piece(
            places,
            np.full(count, events, np.int64),
            np.full(count, version, np.uint8),
            numbers.kid,
            numbers.epoch,
            numbers.seq,
            numbers.sent_at,
            np.full(count, words[0], np.int32),
            np.full(count, words[1], np.int32),
            readings,
            *_wrong(readings, wrong),
        )

    def _take_single(self, places: NDArray[np.int64]) -> None:
        """Opens each message by itself; places ascending."""
        sizes = np.cumsum(self._lengths[places])
        for some in np.split(places, np.flatnonzero(np.diff(sizes // PIECE_BYTES)) + 1):
            piece = self._single_piece(some)
            if len(piece.place):
                self._pieces.append(piece)

    def _single_piece(self, places: NDArray[np.int64]) -> Piece:
        peers, refs = self._segment.peers, self._segment.messages.peer[places].tolist()
        collector = Collector(self._catalogue, self._numbering, self._names)
        opened: list[int] = []
        counts: list[int] = []
        envelopes: list[Envelope] = []
        labels: list[str] = []
        for place, ref in zip(places.tolist(), refs, strict=True):
            try:
                envelope, body = self._open(self._raw[place])
            except Reject:
                self._undecodable.append(place)
                continue
            opened.append(place)
            envelopes.append(envelope)
            counts.append(collector.add(peers[ref].tenant, body))
            labels += body.software, body.config
        readings, events, count = collector.finish(), np.array(counts, np.int64), len(opened)
        message = np.repeat(np.arange(count), events)
        sent_at = np.fromiter((envelope.sent_at for envelope in envelopes), np.int64, count)
        event_ms = sent_at[message] + readings.at
        wrong = implausible(readings.ids, readings.values, readings.counts, event_ms, message, self._catalogue)
        words = np.fromiter(map(self._word, labels), np.int32, 2 * count)
        return Piece(
            np.array(opened, np.int64),
            events,
            np.fromiter((envelope.v for envelope in envelopes), np.uint8, count),
            np.fromiter((envelope.kid for envelope in envelopes), np.uint32, count),
            np.fromiter((envelope.epoch for envelope in envelopes), np.uint32, count),
            np.fromiter((envelope.seq for envelope in envelopes), np.uint64, count),
            sent_at,
            words[::2],
            words[1::2],
            readings,
            *_wrong(readings, wrong),
        )

    def _open(self, raw: bytes) -> tuple[Envelope, Body]:
        """Raises Reject."""
        envelope = open_envelope(raw, json_allowed=True)
        return envelope, self._catalogue.bodies.open(envelope.enc, envelope.body)


class _Words(dict[str, int]):
    """The index of each word, in the order in which they were first asked for."""

    def __missing__(self, word: str) -> int:
        return self.setdefault(word, len(self))


def _wrong(readings: Readings, wrong: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """How many readings of each event are wrong, and their signals."""
    events = len(readings.counts)
    if not wrong.any():
        return np.zeros(events, np.int64), readings.ids[:0]
    owners = np.repeat(np.arange(events), readings.counts)[wrong]
    return np.bincount(owners, minlength=events), readings.ids[wrong]


def _split(places: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    size = max(1, size)
    return (places[start : start + size] for start in range(0, len(places), size))
