"""What an edge was once told to refuse stays refused, whatever an older control database says."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fleetgate.accept.denials import WHOLE_DEVICE, Denial, DenialMemory, strictest
from fleetgate.control.records import Change
from fleetgate.errors import SpoolError
from fleetgate.judge import Reason

ONE, TWO = ("acme", "tcu-0001"), ("acme", "tcu-0002")
DIGEST = b"d" * 32


def change(revision: int) -> Change:
    return Change(revision, "revoke", *ONE, 1_000 + revision)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[DenialMemory]:
    opened = DenialMemory(tmp_path / "denials.db")
    yield opened
    opened.close()


def test_a_denial_survives_a_restart(memory: DenialMemory, tmp_path: Path) -> None:
    """Of a device and of a single credential, with the revision they came with."""
    memory.learn(change(7), {ONE: {WHOLE_DEVICE: Denial(Reason.BANNED), DIGEST: Denial(Reason.REVOKED)}})
    memory.close()
    again = DenialMemory(tmp_path / "denials.db")
    assert (again.of(*ONE), again.revision()) == (
        {WHOLE_DEVICE: Denial(Reason.BANNED), DIGEST: Denial(Reason.REVOKED)},
        7,
    )
    assert again.newest() == change(7)
    again.close()


def test_a_denial_is_lifted_by_a_change_of_that_device_only(memory: DenialMemory) -> None:
    """Changes of others, and newer revisions, leave it."""
    memory.learn(change(1), {ONE: {WHOLE_DEVICE: Denial(Reason.SUSPENDED)}, TWO: {DIGEST: Denial(Reason.REVOKED)}})
    memory.learn(change(2), {TWO: {}})
    memory.learn(change(3), {})
    assert (memory.of(*ONE), memory.of(*TWO)) == ({WHOLE_DEVICE: Denial(Reason.SUSPENDED)}, {})


def test_a_change_replaces_what_was_known_of_the_device(memory: DenialMemory) -> None:
    """Resumed, but with a revoked credential: only the latter is left."""
    memory.learn(change(1), {ONE: {WHOLE_DEVICE: Denial(Reason.SUSPENDED)}})
    memory.learn(change(2), {ONE: {DIGEST: Denial(Reason.REVOKED)}})
    assert memory.of(*ONE) == {DIGEST: Denial(Reason.REVOKED)}


def test_what_an_older_database_denies_is_kept_and_the_newest_change_stays(memory: DenialMemory) -> None:
    """So that the next start knows again that this database is not the one of before."""
    memory.learn(change(5), {})
    memory.learn(change(3), {ONE: {DIGEST: Denial(Reason.REVOKED)}}, newest=False)
    assert (memory.of(*ONE), memory.revision(), memory.newest()) == ({DIGEST: Denial(Reason.REVOKED)}, 5, change(5))


def test_nobody_is_denied_in_the_beginning(memory: DenialMemory) -> None:
    """And no revision has been seen."""
    assert (memory.of(*ONE), memory.revision(), memory.newest()) == ({}, 0, None)


def test_devices_of_the_same_name_in_two_tenants_are_two(memory: DenialMemory) -> None:
    """A ban in one tenant says nothing about the other."""
    memory.learn(change(1), {ONE: {WHOLE_DEVICE: Denial(Reason.BANNED)}})
    assert memory.of("rival", ONE[1]) == {}


def test_a_revocation_to_come_survives_a_restart(memory: DenialMemory, tmp_path: Path) -> None:
    """With its time."""
    memory.learn(change(7), {ONE: {DIGEST: Denial(Reason.REVOKED, 9_000)}})
    memory.close()
    again = DenialMemory(tmp_path / "denials.db")
    assert again.of(*ONE) == {DIGEST: Denial(Reason.REVOKED, 9_000)}
    again.close()


def test_of_two_times_the_earlier_one_counts() -> None:
    """What an edge was told before is not put off by a database that says another time."""
    early, late = {DIGEST: Denial(Reason.REVOKED, 1)}, {DIGEST: Denial(Reason.REVOKED, 2)}
    assert strictest(early, late) == strictest(late, early) == early
    assert strictest(early, {WHOLE_DEVICE: Denial(Reason.BANNED)}) == early | {WHOLE_DEVICE: Denial(Reason.BANNED)}


def test_the_memory_of_an_earlier_fleetgate_is_read(tmp_path: Path) -> None:
    """Its denials had no time: they are of now."""
    with closing(sqlite3.connect(tmp_path / "denials.db")) as db, db:
        db.execute(
            "CREATE TABLE denials (tenant TEXT NOT NULL, device_id TEXT NOT NULL, key_digest BLOB NOT NULL, "
            "reason TEXT NOT NULL, revision INTEGER NOT NULL, PRIMARY KEY (tenant, device_id, key_digest)) "
            "WITHOUT ROWID"
        )
        db.execute("INSERT INTO denials VALUES (?, ?, ?, 'revoked', 7)", (*ONE, DIGEST))
    memory = DenialMemory(tmp_path / "denials.db")
    assert memory.of(*ONE) == {DIGEST: Denial(Reason.REVOKED)}
    memory.learn(change(8), {TWO: {DIGEST: Denial(Reason.REVOKED, 5)}})
    assert memory.of(*TWO) == {DIGEST: Denial(Reason.REVOKED, 5)}
    memory.close()


def test_a_damaged_memory_ends_the_start(tmp_path: Path) -> None:
    """Forgetting it would let denied devices in."""
    (tmp_path / "denials.db").write_bytes(b"no database" * 100)
    with pytest.raises(SpoolError, match="cannot open"):
        DenialMemory(tmp_path / "denials.db")
