"""Decides what a recording of a fleet is: an SQLite file of messages, of vehicles that are numbers, at times from 0.

    message  number, at_ms (when it came, since the first), vehicle (from 0, in the order in which they appear),
             software, config, enc, events (MessagePack: [[ms, kind, {signal: value}, {signal: text}], ...], ms on the
             same scale)

No name, key, number of a message or date is in it. Positions are: whoever has the file can see where a car stands at
night, so it stays personal data, and its mode is 0600. It may come from anywhere, so every row is looked at before the
first is given out. What goes in is `record`'s, when it comes out `replay`'s.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from fleetsim.encode import COLUMNS, KINDS, OLDEST_AT_MS, ROWS_MSGPACK, Event, column_numbers
from fleetsim.foreign import open_foreign
from fleetsim.gate import RunError
from fleetsim.outbox import Draft

_SCHEMA = """
CREATE TABLE message (
    number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, vehicle INTEGER NOT NULL, software TEXT NOT NULL,
    config TEXT NOT NULL, enc INTEGER NOT NULL, events BLOB NOT NULL
)
"""
# A replay takes a while to send; what is this close to 30 days would be too old by then.
LONGEST_MS = -OLDEST_AT_MS - 24 * 3600 * 1000
# A gate takes what a device sends whose clock is so far ahead.
AHEAD_MS = 60_000
_INSERT = "INSERT INTO message VALUES (NULL, ?, ?, ?, ?, ?, ?)"
_ALL = "SELECT number, at_ms, vehicle, software, config, enc, events FROM message ORDER BY number"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Event, ...]).decode
_Label = Annotated[str, Meta(max_length=128)]


class Take(NamedTuple):
    """A recorded message: when it came, in ms since the first, who sent it, and what; its events are on that scale."""

    at_ms: int
    vehicle: int
    draft: Draft


class Span(NamedTuple):
    """What a recording holds; `first_ms` and `last_ms` are those of its events, `until_ms` of its last message."""

    messages: int
    vehicles: int
    until_ms: int
    first_ms: int
    last_ms: int


class _Row(NamedTuple):
    number: int
    at_ms: Annotated[int, Meta(ge=0, le=LONGEST_MS)]
    vehicle: Annotated[int, Meta(ge=0)]
    software: _Label
    config: _Label
    enc: Annotated[int, Meta(ge=ROWS_MSGPACK, le=COLUMNS)]
    events: bytes


def require_sound(take: Take) -> None:
    """Raises ValueError that says what of a message could not be sent again."""
    events = take.draft.events
    if not 0 <= take.at_ms <= LONGEST_MS:
        raise ValueError("it came more than 29 days behind the first one")
    if not events or any(event.kind not in KINDS for event in events):
        raise ValueError("its events are none, or of no known kind")
    if not all(-LONGEST_MS <= event.at - take.at_ms <= AHEAD_MS for event in events):
        raise ValueError("its events are of another time than itself")
    if take.draft.enc == COLUMNS:
        column_numbers(events)


def write_tape(file: Path, takes: Iterable[Take]) -> Span:
    """Writes a new recording, whole or not at all. Raises RunError where the file exists or cannot be written."""
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise RunError(f"{file}: {error.strerror}; name another file with --out") from None
    try:
        with closing(sqlite3.connect(file)) as db:
            db.executescript(_SCHEMA)
            with db:
                db.executemany(_INSERT, map(_row, takes))
        return Tape(file).span
    except BaseException as error:
        file.unlink()
        if isinstance(error, sqlite3.Error):
            raise RunError(f"{file}: {error}") from None
        raise


def is_tape(file: Path) -> bool:
    """Whether this is a recording of a fleet, or something else. Raises RunError."""
    try:
        with file.open("rb") as opened:
            return opened.read(16) == b"SQLite format 3\0"
    except OSError as error:
        raise RunError(f"{file}: {error.strerror}") from None


class Tape:
    """A recording to be read, a message at a time."""

    def __init__(self, file: Path) -> None:
        """Looks at every message. Raises RunError."""
        self._file = file
        try:
            self._db = open_foreign(file, _SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"{file} is no recording ({error}): make one with `fleetsim record`") from None
        span = Span(0, 0, 0, LONGEST_MS + AHEAD_MS, -LONGEST_MS)
        for take in self:
            times = [event.at for event in take.draft.events]
            vehicles, until_ms = max(span.vehicles, take.vehicle + 1), max(span.until_ms, take.at_ms)
            first_ms, last_ms = min(span.first_ms, *times), max(span.last_ms, *times)
            span = Span(span.messages + 1, vehicles, until_ms, first_ms, last_ms)
        self.span = span

    def __iter__(self) -> Iterator[Take]:
        """In the order of their receipt. Raises RunError."""
        number, vehicles = 0, 0
        try:
            for values in self._db.execute(_ALL):
                row = msgspec.convert(values, _Row)
                take = Take(row.at_ms, row.vehicle, Draft(row.software, row.config, row.enc, _decode(row.events)))
                require_sound(take)
                if row.number <= number or row.vehicle > vehicles:
                    raise ValueError("it or its vehicle is out of the order of their numbers")
                number, vehicles = row.number, max(vehicles, row.vehicle + 1)
                yield take
        except (sqlite3.Error, ValueError) as error:
            raise RunError(f"{self._file} cannot be read behind message {number}: {error}") from None


def _row(take: Take) -> tuple[object, ...]:
    draft = take.draft
    return (take.at_ms, take.vehicle, draft.software, draft.config, draft.enc, _encode(draft.events))
