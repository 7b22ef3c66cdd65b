"""A segment as the pulses of its devices: what the watch over the fleet looks at, a row for each device and segment.

Decides what one pulse covers (messages of a device that came one after another with the same epoch, labels and outcome)
and which readings stand for them: the last plausible one of each signal in the last message. Computed from the segment
alone, so a repetition gives the same rows. What a change of them means is decided by `watch`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleetgate.catalogue import NUMBERS
from fleetgate.judge.verdict import Flag
from fleetgate.load.opening import Piece
from fleetgate.load.readings import KINDS

FAULT = KINDS.index("fault")
_ID_BITS = 16


class Heard(NamedTuple):
    """The messages of a segment that could be opened, piece by piece, in arrays beside one another; `day` is that of
    receipt: rows of two days are never one."""

    peer: NDArray[np.int64]
    held: NDArray[np.bool_]
    software: NDArray[np.int32]
    config: NDArray[np.int32]
    epoch: NDArray[np.uint32]
    seq: NDArray[np.uint64]
    sent_at: NDArray[np.int64]
    received_at: NDArray[np.int64]
    day: NDArray[np.int64]
    flags: NDArray[np.uint16]
    events: NDArray[np.int64]
    offset: NDArray[np.int64]


class Pulses(NamedTuple):
    """One entry for each pulse, in the order of `first`: indexes of its first and last message in `Heard`, and what
    all of its messages come to. `signals` are how many of `ids` and `values` are its own."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]
    first_seq: NDArray[np.uint64]
    last_seq: NDArray[np.uint64]
    messages: NDArray[np.int64]
    late: NDArray[np.int64]
    delay_ms: NDArray[np.int64]
    events: NDArray[np.int64]
    faults: NDArray[np.int64]
    unknown: NDArray[np.int64]
    readings: NDArray[np.int64]
    implausible: NDArray[np.int64]
    event_ms: NDArray[np.int64]
    signals: NDArray[np.int64]
    ids: NDArray[np.uint16]
    values: NDArray[np.float64]


_NOTHING = ["i8"] * 14 + ["u2", "f8"]


def pulses_of(heard: Heard, pieces: list[Piece]) -> Pulses:
    """The messages of `heard` are those of `pieces`, in their order."""
    order = np.lexsort((heard.offset, heard.peer))
    if not len(order):
        return Pulses(*[np.empty(0, kind) for kind in _NOTHING])
    begins = np.flatnonzero(_begins(heard, order))
    ends = np.append(begins[1:], len(order)) - 1
    turn = np.argsort(heard.offset[order[begins]])  # rows stand in the order of their places
    last = order[ends][turn]
    inside = np.concatenate([_inside(piece) for piece in pieces], axis=1)
    faults, unknown, readings, implausible = np.add.reduceat(inside[:4, order], begins, axis=1)[:, turn]
    signals, ids, values = _last_readings(pieces, last, heard.held[last])

    def each(ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = ufunc.reduceat(values[order], begins)[turn]
        return found

    return Pulses(
        first=order[begins][turn],
        last=last,
        first_seq=each(np.minimum, heard.seq),
        last_seq=each(np.maximum, heard.seq),
        messages=(ends - begins + 1)[turn],
        late=each(np.add, (heard.flags & Flag.LATE != 0).astype(np.int64)),
        delay_ms=each(np.minimum, heard.received_at - heard.sent_at),
        events=each(np.add, heard.events),
        faults=faults,
        unknown=unknown,
        readings=readings,
        implausible=implausible,
        event_ms=heard.sent_at[last] + inside[4, last],
        signals=signals,
        ids=ids,
        values=values,
    )


def _begins(heard: Heard, order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each message, in this order, is the first of a pulse."""
    begins = np.zeros(len(order), np.bool_)
    begins[0] = True
    for same in (heard.peer, heard.held, heard.software, heard.config, heard.epoch, heard.day):
        begins[1:] |= np.diff(same[order].astype(np.int64)) != 0
    return begins


def _inside(piece: Piece) -> NDArray[np.int64]:
    """For each message of a piece: its faults, events with unknown names, readings, implausible ones, and the time of
    its last event in ms after it was sent. Each message has an event."""
    ends = np.cumsum(piece.events)
    some = piece.readings
    parts = (some.kind == FAULT, some.unknown, some.counts, piece.wrong_counts)
    sums = [np.add.reduceat(part.astype(np.int64), ends - piece.events) for part in parts]
    return np.stack([*sums, some.at[ends - 1]])


def _last_readings(
    pieces: list[Piece], messages: NDArray[np.int64], held: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.float64]]:
    """How many signals each of these messages has, and one behind the other their numbers and values: of each signal
    the last plausible reading. Of `held` ones none."""
    owner = np.full(sum(len(piece.place) for piece in pieces), -1)
    owner[messages[~held]] = np.flatnonzero(~held)
    starts = np.cumsum([0, *(len(piece.place) for piece in pieces)])
    found = [_of_piece(piece, owner[start:end]) for piece, (start, end) in zip(pieces, pairwise(starts), strict=True)]
    owners, ids, values = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(owners, kind="stable")
    return np.bincount(owners, minlength=len(messages)), ids[order], values[order]


def _of_piece(
    piece: Piece, owner: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint16], NDArray[np.float64]]:
    """(owner, signal, value): the last plausible reading of each signal of the messages that have an owner."""
    some = piece.readings
    wanted = np.flatnonzero(owner >= 0)
    events = _ranges((np.cumsum(piece.events) - piece.events)[wanted], piece.events[wanted])
    counts = some.counts[events]
    at = _ranges((np.cumsum(some.counts) - some.counts)[events], counts)
    mine = np.repeat(np.repeat(np.arange(len(wanted)), piece.events[wanted]), counts)
    if piece.wrong_counts[events].any():
        good = ~_wrong(piece, events, at)
        at, mine = at[good], mine[good]
    ids = some.ids[at]
    kinds = np.flatnonzero(np.bincount(ids, minlength=1))
    column = np.zeros(NUMBERS, np.int64)
    column[kinds] = np.arange(len(kinds))
    table = np.full(len(wanted) * len(kinds), -1)
    table[mine * len(kinds) + column[ids]] = at  # of those for one place the last is kept
    kept = table[table >= 0]
    owners = np.repeat(owner[wanted], len(kinds))[table >= 0]
    return owners, some.ids[kept], some.values[kept]


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of all ranges, one behind the other."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(int(lengths.sum()))


def _wrong(piece: Piece, events: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each reading of these events, which are at `at`, is implausible."""
    counts = piece.wrong_counts[events]
    wrong = piece.wrong_ids[_ranges((np.cumsum(piece.wrong_counts) - piece.wrong_counts)[events], counts)]
    place = np.arange(len(events))
    owner = np.repeat(place, piece.readings.counts[events])
    return np.isin((owner << _ID_BITS) | piece.readings.ids[at], (np.repeat(place, counts) << _ID_BITS) | wrong)
