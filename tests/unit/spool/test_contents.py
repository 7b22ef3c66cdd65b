"""A row that rotted in one of the edge's databases is told by name, by the edge, by verify and by a repair."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from tests.spools import OpenSpool, SetClock

from fleetgate.accept.denials import WHOLE_DEVICE, Denial, DenialMemory
from fleetgate.control import records
from fleetgate.control.records import Change
from fleetgate.errors import SpoolError
from fleetgate.judge import Reason
from fleetgate.spool.checkpoint import STATES, DeviceState, ScoreState, WindowState
from fleetgate.spool.contents import ChangeForm
from fleetgate.spool.custody import held
from fleetgate.spool.repair import Repair
from fleetgate.spool.verify import verify

CHANGE = Change(7, "revoke", "acme", "tcu-0001", 1_000)


@pytest.fixture
def written(spool: OpenSpool) -> Path:
    """Left by an edge that knows one device and refuses it."""
    window = WindowState(b"k" * 32, 3, 9, 77, bytes(8192))
    facts = ("watched", 5, 2, 7, "2026.44.1", "c0ffee", 8, 4, 3, None, [ScoreState("bad_mac", 12.5, 6)])
    spool.home.checkpoint.save([DeviceState("acme", "tcu-0001", 3, *facts, [window])])
    spool.home.checkpoint.advance(0)
    with closing(DenialMemory(spool.directory / "denials.db")) as denials:
        denials.learn(
            CHANGE, {("acme", "tcu-0001"): {WHOLE_DEVICE: Denial(Reason.BANNED), b"k" * 32: Denial(Reason.REVOKED)}}
        )
    spool.leave()
    return spool.directory


def rot(directory: Path, file: str, sql: str) -> None:
    with closing(sqlite3.connect(directory / file)) as db:
        db.execute(sql)
        db.commit()


def asked_for_the_device(directory: Path) -> None:
    """As an edge does when the vehicle connects, and when it starts."""
    spool = OpenSpool(directory, SetClock())
    try:
        spool.home.checkpoint.device("acme", "tcu-0001")
        with closing(DenialMemory(directory / "denials.db")) as denials:
            denials.newest()
            denials.of("acme", "tcu-0001")
    finally:
        spool.leave()


def test_what_an_edge_wrote_is_good(written: Path) -> None:
    """For the edge, for verify, and for a repair."""
    asked_for_the_device(written)
    with held(written) as custody:
        assert Repair(custody, SetClock(), os.urandom).steps == []
    assert verify(written).good


@pytest.mark.parametrize(
    ("file", "sql"),
    [
        ("checkpoint.db", "UPDATE devices SET state = 'trusued'"),
        ("checkpoint.db", "UPDATE devices SET scores = '{'"),
        ("checkpoint.db", "UPDATE windows SET slots = substr(slots, 1, 8184)"),
        ("checkpoint.db", "UPDATE windows SET highest = 'x1'"),
        ("denials.db", "UPDATE denials SET reason = 'revokee'"),
        ("denials.db", "UPDATE denials SET from_ms = 'x'"),
        ("denials.db", "UPDATE newest SET change = replace(change, '{', '[')"),
        ("denials.db", "UPDATE newest SET change = replace(change, 'kind', 'kine')"),
    ],
)
def test_a_rotten_row_is_told_and_repaired(written: Path, file: str, sql: str) -> None:
    """It was an unexpected error each time the vehicle connected, and no command found it."""
    rot(written, file, sql)
    with pytest.raises(SpoolError, match=f"{file}.* damaged .*fleetgate spool repair"):
        asked_for_the_device(written)
    assert [file in line for line in verify(written).trouble] == [True]
    with held(written) as custody:
        for step in Repair(custody, SetClock(), os.urandom).steps:
            step.act()
    assert verify(written).good
    asked_for_the_device(written)
    assert list((written / "parked").glob(f"{file}*.damaged"))


def test_a_damaged_file_of_denials_is_repaired(written: Path) -> None:
    """SQLite cannot open it: the edge ended with 5 at every start, and a repair found nothing."""
    path = written / "denials.db"
    path.write_bytes(bytes(100) + path.read_bytes()[100:])
    with pytest.raises(SpoolError, match=r"denials\.db"):
        asked_for_the_device(written)
    with held(written) as custody:
        for step in Repair(custody, SetClock(), os.urandom).steps:
            step.act()
    asked_for_the_device(written)


def test_the_forms_are_those_of_control() -> None:
    """Which the spool's room does not import."""
    assert set(STATES.split("|")) == {state.value for state in records.DeviceState}
    assert msgspec.json.decode(msgspec.json.encode(CHANGE), type=ChangeForm).revision == CHANGE.revision
    assert [field.name for field in msgspec.structs.fields(ChangeForm)] == list(CHANGE.__struct_fields__)
