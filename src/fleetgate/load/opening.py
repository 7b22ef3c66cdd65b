"""A segment's messages opened, in pieces: arrays of a few hundred thousand readings each.

Decides which road a message takes: together with all that look like it (layout.py), or by itself (readings.py). Both
give the same arrays. The judge accepted each message once: what does not open here was damaged, or written by a newer
edge. A piece's readings are judged for plausibility while they are in the processor's cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetgate.catalogue import Catalogue
from fleetgate.judge.body import Body
from fleetgate.judge.envelope import Envelope, open_envelope
from fleetgate.judge.verdict import Reject
from fleetgate.load.layout import Layout, NoLayout, Numbers, numbers_to_walk
from fleetgate.load.plausibility import implausible, implausible_alike
from fleetgate.load.readings import NO_NUMBERS, NO_TEXTS, Collector, Numbering, Readings
from fleetgate.load.unknown import UnknownNames
from fleetgate.spool.reader import Segment

PIECE_READINGS = 256 * 1024
PIECE_BYTES = 1024 * 1024
"""Of messages. A piece's arrays (2 MiB for each number of 8 bytes) stay in the cache, and the allocator hands the same
memory out again; arrays of a whole segment were 130 MiB more at the highest, and new pages each time."""

ALIKE = 32
"""Fewer messages of one length are opened one by one: each piece is a block of its own to ClickHouse."""

FEW = 16
"""For the same reason a layout must hold for one of so many messages of a piece, and for ALIKE / 2 (half of
the piece, if it is a small one); the others are left to be opened one by one."""

SHARE = 0.15
"""Of what opening all messages one by one would cost at least, tries that lead to nothing may cost so much: whatever
is sent, trying layouts cannot make load much slower. Each group of one length brings its share, the largest first, and
leaves to the next what it did not spend; messages that a layout takes bring what was saved on them."""

ALONE_NS, ALONE_NS_A_BYTE, ALONE_NS_A_NUMBER = 2_000, 2, 100
"""The least that opening one message by itself costs (3.3 us with 8 signals; 2.3 ns a byte of long texts, 4 of columns,
18 of signals), and the least for a number in rows (190 ns)."""

OPEN_NS_A_NUMBER, OPEN_NS_A_BYTE = 200, 3
"""The most that the first message costs, which is opened again if nothing comes of it."""

LAYOUT_NS, WALK_NS, SCAN_NS, SCAN_NS_A_BYTE = 40_000, 2_000, 100, 0.6
"""A layout; each number that it walks over; laying a message beside others and comparing each of its
bytes with the mask (0.1 to 0.6)."""

READ_NS, READ_NS_A_BYTE = 1_300, 1
"""Each number of the layout, in each piece, and the bytes of the messages that fit. Only the ratios of all these
matter: they were measured together, and bound the numbers walked and the bytes read."""

CHANCE = 512
"""Of so many messages one may be too large for the credit before its group is left to be opened one by one."""


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
        self._credit_ns = 0.0

    def run(self) -> Opened:
        known = np.isin(self._segment.messages.peer, np.fromiter(self._segment.peers, np.int64))
        self._undecodable += np.flatnonzero(~known).tolist()
        places = np.flatnonzero(known)
        lengths = self._lengths[places]
        order = np.argsort(lengths, kind="stable")
        alike = np.split(places[order], np.flatnonzero(np.diff(lengths[order])) + 1)
        single = [self._take_alike(group) for group in sorted(alike, key=len, reverse=True)]
        self._take_single(np.sort(np.concatenate(single)))
        return Opened(self._pieces, list(self._words), sorted(self._undecodable))

    def _take_alike(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Takes what has a layout among messages of one length; returns the others."""
        refused: list[NDArray[np.int64]] = []
        chances = 1 + len(places) // CHANCE
        self._credit_ns += SHARE * len(places) * self._alone_ns(places)
        while len(places) >= ALIKE and self._credit_ns > LAYOUT_NS and chances:
            try:
                left = self._take_like_first(places)
            except (Reject, NoLayout):
                left = places
            except _TooLarge:
                left = places
                chances -= 1
            if len(left) and left[0] == places[0]:  # this one is by itself, whatever is like it
                refused.append(left[:1])
                left = left[1:]
            places = left
        return np.concatenate([*refused, places])

    def _alone_ns(self, places: NDArray[np.int64]) -> float:
        """The least that opening a message of this group by itself costs."""
        return ALONE_NS + ALONE_NS_A_BYTE * int(self._lengths[places[0]]) if len(places) else 0.0

    def _take_like_first(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ends at the first piece of which the layout holds for few. Raises Reject, NoLayout, _TooLarge."""
        raw = self._raw[int(places[0])]
        self._credit_ns -= ALONE_NS + OPEN_NS_A_BYTE * len(raw)
        envelope, body = self._open(raw)
        count = numbers_to_walk(body)
        self._credit_ns -= OPEN_NS_A_NUMBER * count
        if LAYOUT_NS + WALK_NS * count > self._credit_ns:
            raise _TooLarge
        self._credit_ns -= LAYOUT_NS + WALK_NS * count
        layout = Layout(raw, envelope, body, self._numbering)
        words = (self._word(body.software), self._word(body.config))
        gain_ns = max(self._alone_ns(places), ALONE_NS_A_NUMBER * count)
        left = []
        size = max(1, min(PIECE_BYTES // len(raw), PIECE_READINGS // max(1, len(layout.ids))))
        for start in range(0, len(places), size):
            some = places[start : start + size]
            joined = np.frombuffer(b"".join(map(self._raw.__getitem__, some.tolist())), np.uint8)
            messages = joined.reshape(len(some), len(raw))
            same = layout.fits(messages)
            self._credit_ns -= SCAN_NS * len(some) + SCAN_NS_A_BYTE * joined.size
            enough = max(len(some) / FEW, min(ALIKE, len(some)) / 2)
            if np.count_nonzero(same) < enough:
                left.append(places[start:])
                break
            numbers = layout.read(messages if same.all() else messages[same])
            self._credit_ns -= READ_NS * count + READ_NS_A_BYTE * len(raw) * len(numbers.good)
            taken = np.flatnonzero(same)[numbers.good]
            if len(taken) < enough:
                left.append(places[start:])
                break
            self._credit_ns += gain_ns * len(taken)
            left.append(np.delete(some, taken))
            self._pieces.append(self._alike_piece(layout, envelope.v, words, some[taken], numbers.only_good()))
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


class _TooLarge(Exception):
    """Walking over this message would cost more than there is credit for."""


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
