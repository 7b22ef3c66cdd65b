"""Layouts: messages that differ in nothing but their numbers, opened together.

What a vehicle's software sends looks alike, message after message: the same names, kinds and widths in the same places.
The first such message is opened by the judge's functions (in opening.py); a layout remembers where its numbers stand.
A message whose other bytes are the same would be decoded alike, so its numbers are read where they stand, into arrays,
with no Python object for a message, event or reading. Decides which messages that holds for: one with a number that the
judge would refuse, or with a column's NaN, is left to readings.py, as is everything that has no layout.

From records to columns that is 0.5 us an event instead of 5.1 where a message has one event, 0.3 instead of 1.55 where
it has 60, and 11 ns a reading instead of 63 where it has 300 rows of 40 signals. Messages that are not alike gain
nothing here: a layout is walked in Python, 2 us a number, ten times what it takes to open the number. How much may be
lost so is bounded in opening.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetgate.judge.body import COLUMNS, DTYPE_OF, MAX_AT_MS, ROWS_MSGPACK, Body, Columns
from fleetgate.judge.envelope import ARRAY_OF_EIGHT, TAG_BYTES, Envelope
from fleetgate.load.readings import KIND_INDEX

_INTEGERS = {0xCC: "u1", 0xCD: ">u2", 0xCE: ">u4", 0xCF: ">u8", 0xD0: "i1", 0xD1: ">i2", 0xD2: ">i4", 0xD3: ">i8"}
_NUMBERS = {**_INTEGERS, 0xCA: ">f4", 0xCB: ">f8"}
_LENGTH_BYTES = {0xD9: 1, 0xC4: 1, 0xDA: 2, 0xC5: 2, 0xDC: 2, 0xDE: 2, 0xDB: 4, 0xC6: 4, 0xDD: 4, 0xDF: 4}


class _Place(NamedTuple):
    """Where a number, or several of them in a row, stand in each message."""

    offset: int
    dtype: str

    def read(self, messages: NDArray[np.uint8], count: int = 1) -> NDArray[Any]:
        """The numbers of all messages, shape (messages, count), still in the bytes of `messages`."""
        dtype = np.dtype(self.dtype)
        strides = (messages.strides[0], dtype.itemsize)
        return np.ndarray((len(messages), count), dtype, messages.data, self.offset, strides)


class Numbers(NamedTuple):
    """Of each message: whether the judge takes its numbers (`good`; no NaN either), and the numbers. `at` has shape
    (messages, events), `values` (messages, readings), event by event."""

    good: NDArray[np.bool_]
    kid: NDArray[np.uint32]
    epoch: NDArray[np.uint32]
    seq: NDArray[np.uint64]
    sent_at: NDArray[np.int64]
    at: NDArray[np.int64]
    values: NDArray[np.float64]

    def only_good(self) -> Numbers:
        if self.good.all():
            return self
        columns: list[Any] = [column[self.good] for column in self]
        return Numbers(*columns)


class Layout:
    """Of `raw`, opened as `envelope` and `body`. Of one message: `kind` (index into KINDS) and `counts` (readings) of
    each event, and `ids`, the signals of all its readings. Raises NoLayout."""

    def __init__(self, raw: bytes, envelope: Envelope, body: Body, numbers: Mapping[int | str, int]) -> None:
        if raw[:1] != ARRAY_OF_EIGHT or envelope.enc not in (ROWS_MSGPACK, COLUMNS):
            raise NoLayout
        walk = _Walk(raw, 1)
        walk.fixed_number()  # the version
        self._head = [walk.integer() for _ in range(4)]
        walk.fixed_number()  # the encoding
        end = walk.size()
        end += walk.at
        self._at: list[_Place] = []
        self._values: list[_Place] = []
        ids: list[int] = []
        walk.size()  # of the body's array
        walk.text()
        walk.text()
        if isinstance(body, Columns):
            self._rows = body.n
            self._columns(walk, body, numbers, ids)
            self.kind = np.full(body.n, KIND_INDEX[body.kind], np.int8)
            self.counts = np.full(body.n, len(ids), np.int64)
            self.ids = np.tile(np.array(ids, np.uint16), body.n)
        else:
            self._rows = 1
            counts = [self._event(walk, numbers, ids) for _ in range(walk.size())]
            self.kind = np.array([KIND_INDEX[event.kind] for event in body.events], np.int8)
            self.counts = np.array(counts, np.int64)
            self.ids = np.array(ids, np.uint16)
        if walk.at != end or walk.size() != TAG_BYTES or walk.at + TAG_BYTES != len(raw):
            raise NoLayout
        walk.mask[walk.at :] = bytes(TAG_BYTES)
        self._mask = np.frombuffer(bytes(walk.mask), np.uint8)
        self._fixed = np.frombuffer(raw, np.uint8) & self._mask
        events = len(self.kind)
        width = int(self.counts[0])
        same = bool((self.counts == width).all()) and bool((self.ids.reshape(events, -1) == self.ids[:width]).all())
        self.regular: NDArray[np.uint16] | None = self.ids[:width] if same else None
        """The signals of every event, where all have the same."""

    def _event(self, walk: _Walk, numbers: Mapping[int | str, int], ids: list[int]) -> int:
        walk.size()
        at = walk.integer()
        if at.dtype == ">u8":
            raise NoLayout  # only 0 is valid, and `read` would take 2**64 - 1500 for -1500
        self._at.append(at)
        walk.text()
        count = walk.size()
        for _ in range(count):
            ids.append(_known(walk.key(), numbers))
            self._values.append(walk.number())
        if walk.size():
            raise NoLayout  # texts are no numbers
        return count

    def _columns(self, walk: _Walk, body: Columns, numbers: Mapping[int | str, int], ids: list[int]) -> None:
        walk.text()
        walk.fixed_number()
        self._at.append(_Place(walk.free(walk.size()), "<i4"))
        walk.size()
        for column in body.columns.values():
            ids.append(_known(walk.key(), numbers))
            walk.size()
            walk.fixed_number()
            self._values.append(_Place(walk.free(walk.size()), DTYPE_OF[column.type].str))

    def fits(self, messages: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which messages of this layout's length, shape (messages, bytes), differ from it in nothing but numbers."""
        return np.logical_not(((messages & self._mask) ^ self._fixed).any(axis=1))

    def read(self, messages: NDArray[np.uint8]) -> Numbers:
        """The numbers of messages that fit; shape (messages, bytes), rows without gaps."""
        rows, count = self._rows, len(messages)
        kid, epoch, seq, sent_at = (place.read(messages)[:, 0] for place in self._head)
        good = (kid >= 0) & (kid < 2**32) & (epoch >= 0) & (epoch < 2**32)
        good &= (seq >= 0) & (seq < 2**63) & (sent_at < 2**63)
        at = np.empty((count, len(self._at), rows), np.int64)
        for index, place in enumerate(self._at):
            at[:, index] = place.read(messages, rows)
        good &= ((at <= 0) & (at >= -MAX_AT_MS)).all(axis=(1, 2))
        values = np.empty((count, rows, len(self._values)))
        with np.errstate(invalid="ignore"):  # a NaN that signals, in f32
            for index, place in enumerate(self._values):
                values[:, :, index] = place.read(messages, rows)
        good &= np.isfinite(values).all(axis=(1, 2))
        return Numbers(
            good,
            kid.astype(np.uint32),
            epoch.astype(np.uint32),
            seq.astype(np.uint64),
            sent_at.astype(np.int64),
            at.reshape(count, -1),
            values.reshape(count, -1),
        )


class NoLayout(Exception):
    """Something else than numbers may differ from message to message, or a signal is not in the catalogue."""


def numbers_to_walk(body: Body) -> int:
    """How many numbers, or columns of them, a layout of this body walks over."""
    if isinstance(body, Columns):
        return 1 + len(body.columns)
    return sum(1 + len(event.signals) for event in body.events)


def _known(key: int | str, numbers: Mapping[int | str, int]) -> int:
    number = numbers[key]
    if not number:
        raise NoLayout
    return number


class _Walk:
    """Goes through the MessagePack of one valid message; `mask` has the bits that all messages of its layout share."""

    def __init__(self, raw: bytes, at: int) -> None:
        self.at = at
        self.mask = bytearray(b"\xff" * len(raw))
        self._raw = raw

    def size(self) -> int:
        """Of an array, map, text or bytes, whose content is next."""
        first = self._raw[self.at]
        self.at += 1
        if 0x80 <= first <= 0x9F:
            return first & 0x0F
        if 0xA0 <= first <= 0xBF:
            return first & 0x1F
        length = _LENGTH_BYTES.get(first)
        if length is None:
            raise NoLayout
        self.at += length
        return int.from_bytes(self._raw[self.at - length : self.at], "big")

    def text(self) -> str:
        size = self.size()
        self.at += size
        return self._raw[self.at - size : self.at].decode()

    def key(self) -> int | str:
        first = self._raw[self.at]
        if 0xA0 <= first <= 0xBF or 0xD9 <= first <= 0xDB:
            return self.text()
        return self.fixed_number()

    def fixed_number(self) -> int:
        """A number that is the same in every message."""
        place, _ = self._number()
        return int(np.frombuffer(self._raw, place.dtype, 1, place.offset)[0])

    def integer(self) -> _Place:
        place = self.number()
        if place.dtype in (">f4", ">f8"):
            raise NoLayout
        return place

    def number(self) -> _Place:
        """A number that may be another one of the same width in each message."""
        place, small = self._number()
        self.mask[place.offset : self.at] = bytes([small]) * (self.at - place.offset)
        return place

    def _number(self) -> tuple[_Place, int]:
        """Steps over a number; its place, and the bits of its bytes that are not its value."""
        first = self._raw[self.at]
        self.at += 1
        if first < 0x80:
            return _Place(self.at - 1, "u1"), 0x80
        if first >= 0xE0:
            return _Place(self.at - 1, "i1"), 0xE0
        dtype = _NUMBERS.get(first)
        if dtype is None:
            raise NoLayout
        place = _Place(self.at, dtype)
        self.at += int(dtype[-1])
        return place, 0x00

    def free(self, size: int) -> int:
        """Bytes that are others in each message; their offset."""
        start = self.at
        self.at += size
        self.mask[start : self.at] = bytes(size)
        return start
