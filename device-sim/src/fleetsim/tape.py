"""Decides what a recording of a fleet is: an SQLite file of messages, of vehicles that are numbers, at times from 0.

    message  number, at_ms (when it came, since the first), vehicle (from 0), software, config, enc,
             first_ms and last_ms (of its events, on the same scale), events (MessagePack: [[ms, kind, {number: value},
             {number: text}], ...])

No name, key, number of a message or date is in it. Positions are: whoever has the file can see where a car stands at
night, so it stays personal data, and its mode is 0600. What goes in is `record`'s, when it comes out `replay`'s.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec

from fleetsim.encode import OLDEST_AT_MS, Event
from fleetsim.gate import RunError
from fleetsim.outbox import Draft

_SCHEMA = """
CREATE TABLE message (
    number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, vehicle INTEGER NOT NULL, software TEXT NOT NULL,
    config TEXT NOT NULL, enc INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
    events BLOB NOT NULL
);
PRAGMA user_version = 1;
"""
VERSION = 1
# A replay takes a while to send; what is this close to 30 days would be too old by then.
LONGEST_MS = -OLDEST_AT_MS - 24 * 3600 * 1000
_INSERT = "INSERT INTO message VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Event, ...]).decode


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
        """Raises RunError."""
        self._file = file
        self._db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        version = self._ask("PRAGMA user_version")[0]
        if version != VERSION:
            raise RunError(f"{file} is no recording of version {VERSION}: make one with `fleetsim record`")
        facts = self._ask(
            "SELECT count(*), 1 + coalesce(max(vehicle), -1), coalesce(max(at_ms), 0), coalesce(min(first_ms), 0), "
            "coalesce(max(last_ms), 0) FROM message"
        )
        self.span = Span(*facts)

    def __iter__(self) -> Iterator[Take]:
        """In the order of their receipt. Raises RunError."""
        try:
            rows = self._db.execute("SELECT at_ms, vehicle, software, config, enc, events FROM message ORDER BY number")
            for at_ms, vehicle, software, config, enc, events in rows:
                yield Take(at_ms, vehicle, Draft(software, config, enc, _decode(events)))
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise RunError(f"{self._file} cannot be read: {error}") from None

    def _ask(self, query: str) -> Sequence[int]:
        try:
            row: Sequence[int] = self._db.execute(query).fetchone()
        except sqlite3.Error as error:
            raise RunError(f"{self._file} cannot be read: {error}") from None
        return row


def _row(take: Take) -> tuple[object, ...]:
    draft, times = take.draft, [event.at for event in take.draft.events]
    events = _encode(draft.events)
    return (take.at_ms, take.vehicle, draft.software, draft.config, draft.enc, min(times), max(times), events)
