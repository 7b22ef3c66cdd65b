"""Recordings and identities that somebody else made: whatever is in the file, an error that says so, and soon."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleetgate.control.archive import _SCHEMA as ARCHIVE_SCHEMA
from fleetsim.bundle import BundleError
from fleetsim.clock import Clock
from fleetsim.encode import COLUMNS, ROWS_MSGPACK, Event
from fleetsim.fleet import Devices
from fleetsim.foreign import open_foreign
from fleetsim.gate import Gate, RunError
from fleetsim.identities import Identities
from fleetsim.ledger import Ledger
from fleetsim.outbox import Draft
from fleetsim.replay import Play, choose_senders, play_of, send
from fleetsim.tape import Take, Tape, write_tape

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
DAY_MS = 24 * 3600 * 1000
EVENT = Event(0, "sample", {1: 50.0}, {})
pack = msgspec.msgpack.encode


def altered(file: Path, *statements: str, **values: Any) -> Path:
    with closing(sqlite3.connect(file)) as db, db:
        for statement in statements:
            db.execute(statement, values)
    return file


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """Two messages, of two vehicles."""
    file = tmp_path / "fleet.tape"
    write_tape(file, [Take(at, at, Draft("software-0", "config-0", ROWS_MSGPACK, (EVENT,))) for at in (0, 1)])
    return file


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """One identity, of which nothing is real."""
    file = tmp_path / "identities.db"
    with closing(sqlite3.connect(file)) as db, db:
        db.executescript(ARCHIVE_SCHEMA)
        db.execute("INSERT INTO authority VALUES (1, x'', x'43')")
        db.execute("INSERT INTO device VALUES (1, 'acme', 'tcu', 'veh', 1, zeroblob(32), x'43', x'4b', 1)")
    return file


def test_an_endless_view_in_the_place_of_the_messages_is_refused(tape: Path) -> None:
    """The command prints one line and ends."""
    columns = "i AS number, 0 AS at_ms, 0 AS vehicle, 's' AS software, 'c' AS config, 1 AS enc, x'90' AS events FROM n"
    altered(tape, "DROP TABLE message", f"CREATE VIEW message AS {ENDLESS} {columns}")
    arguments = ("replay", str(tape), "--state", str(tape.parent / "state"), "--identities", str(tape.parent))
    done = subprocess.run(
        [sys.executable, "-m", "fleetsim", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    why = "its tables are others than they should be"
    assert done.stderr == f"fleetsim: {tape} is no recording ({why}): make one with `fleetsim record`\n"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE message ADD COLUMN more INTEGER",
        "CREATE TRIGGER other AFTER INSERT ON message BEGIN DELETE FROM message; END",
        "CREATE INDEX other ON message (vehicle)",
        "CREATE TABLE other (number INTEGER)",
    ],
)
def test_a_recording_has_its_one_table_and_nothing_else(tape: Path, statement: str) -> None:
    """What the reader does not expect it does not read."""
    with pytest.raises(RunError, match="its tables are others than they should be"):
        Tape(altered(tape, statement))


ROWS: dict[str, tuple[str, Any]] = {
    "a vehicle before the first": ("vehicle", -1),
    "a vehicle that was left out": ("vehicle", 3),
    "a vehicle beyond every number": ("vehicle", 2**63 - 1),
    "before the first message": ("at_ms", -1),
    "in 285,000 years": ("at_ms", 9 * 10**15),
    "a time in words": ("at_ms", "soon"),
    "a time that is none": ("at_ms", 1.5),
    "a vehicle with a name": ("vehicle", b"veh-0001"),
    "software as a number": ("software", b"\x01"),
    "software without end": ("software", "9" * 129),
    "an encoding that is none": ("enc", 4),
    "events in words": ("events", "events"),
    "events that are none": ("events", b"\xc1"),
    "no events": ("events", b"\x90"),
    "more than a row holds": ("events", bytes(2 * 1024 * 1024)),
    "a kind that is none": ("events", pack([[0, "VWVWZZZ1JZXW0000", {1: 1.0}, {}]])),
    "an event of last year": ("events", pack([[-365 * DAY_MS, "sample", {1: 1.0}, {}]])),
    "an event of tomorrow": ("events", pack([[DAY_MS, "sample", {1: 1.0}, {}]])),
    "a message with a number before all": ("number", -7),
}


@pytest.mark.parametrize(("column", "value"), ROWS.values(), ids=ROWS.keys())
def test_a_row_that_no_recorder_writes_is_refused_before_anything_is_sent(tape: Path, column: str, value: Any) -> None:
    """With the place."""
    altered(tape, f"UPDATE message SET {column} = :value WHERE number = 2", value=value)
    with pytest.raises(RunError, match=r"fleet\.tape cannot be read behind message [01]: "):
        play_of(tape, "time", [])


def test_columns_hold_only_what_columns_can_say(tape: Path) -> None:
    """A text in them would end the replay in its midst."""
    events = pack([[0, "fault", {1: 1.0}, {44: "P0301"}]])
    altered(tape, "UPDATE message SET enc = :enc, events = :events", enc=COLUMNS, events=events)
    with pytest.raises(RunError, match="no texts"):
        Tape(tape)


def test_a_recording_of_more_than_29_days_is_refused(tape: Path) -> None:
    """Each message is near its events, but the first ones would be too old when the last ones are now."""
    late_ms = 29 * DAY_MS
    early, late = (pack([[at, "sample", {1: 1.0}, {}]]) for at in (-DAY_MS, late_ms))
    altered(tape, "UPDATE message SET events = :early WHERE number = 1", early=early)
    altered(tape, "UPDATE message SET at_ms = :at, events = :late WHERE number = 2", at=late_ms, late=late)
    with pytest.raises(RunError, match="more than 29 days apart"):
        play_of(tape, "time", [])


def test_a_recording_that_goes_bad_in_its_midst_ends_the_replay_with_its_reason(tmp_path: Path) -> None:
    """The disk fails, say, behind the look at every message."""

    def takes(start_ms: float) -> Iterator[Take]:
        raise RunError("it cannot be read")
        yield

    gate = Gate(("127.0.0.1", 1), ("127.0.0.1", 1), "localhost")
    with closing(Ledger(tmp_path / "ledger.db", Clock())) as ledger, pytest.raises(RunError, match="cannot be read"):
        asyncio.run(send(Devices(gate, tmp_path / "state", ledger, Clock(), 1), [], Play(0, 0, takes), 1.0))


def test_a_statement_that_runs_on_is_ended(tape: Path) -> None:
    """Whatever a schema let through."""
    schema = "CREATE TABLE one (number INTEGER)"
    file = altered(tape.parent / "one", schema)
    with closing(open_foreign(file, schema)) as db, pytest.raises(sqlite3.OperationalError, match="interrupted"):
        db.execute(f"{ENDLESS} count(*) FROM n").fetchone()


def test_the_sound_file_is_read(archive: Path) -> None:
    """So what the others are refused for is what was altered."""
    [identity] = Identities.open(archive.parent)
    assert (identity.name, identity.ca) == ("acme/tcu", "C")


ARCHIVES: dict[str, tuple[str, ...]] = {
    "an endless view of devices": ("DROP TABLE device", f"CREATE VIEW device AS {ENDLESS} i AS number FROM n"),
    "another column": ("ALTER TABLE device ADD COLUMN more INTEGER",),
    "fewer than none": ("INSERT INTO waiting VALUES (-5)",),
    "a count in words": ("INSERT INTO waiting VALUES ('many')",),
    "more than there are": ("INSERT INTO waiting VALUES (9000000000000000000)",),
    "a CA that is no bytes": ("UPDATE authority SET ca = NULL",),
    "a CA that is no text": ("UPDATE authority SET ca = x'ff'",),
    "no authority": ("DELETE FROM authority",),
    "a short key": ("UPDATE device SET mac_key = x'00'",),
    "a key id that is none": ("UPDATE device SET kid = -1",),
    "a name that is bytes": ("UPDATE device SET device_id = x'ff'",),
    "a name without end": ("UPDATE device SET tenant = hex(zeroblob(100))",),
    "a certificate that is a number": ("UPDATE device SET certificate = 1",),
}


@pytest.mark.parametrize("statements", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_identities_that_nobody_could_use_are_refused(archive: Path, statements: tuple[str, ...]) -> None:
    """At the start, or when the device is wanted."""
    altered(archive, *statements)
    with pytest.raises(BundleError, match=r"identities\.db: "):
        choose_senders(2, [], archive.parent)


def test_who_sends_is_said_once(archive: Path) -> None:
    """Not with two options, one of which would not count."""
    with pytest.raises(RunError, match="--device and --identities"):
        choose_senders(1, [archive], archive.parent)
