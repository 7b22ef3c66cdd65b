"""The two positions that let segments go: what they hold, and that they change as a whole or not at all."""

from __future__ import annotations

import os
import resource
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleetgate.durable import replace_durably
from fleetgate.errors import SpoolError
from fleetgate.spool.checkpoint import Checkpoint, DeviceState, ScoreState, WindowState
from fleetgate.spool.cursor import Cursor, read_cursor, write_cursor

SLOTS = bytes(range(256)) * 32
ONE, TWO = WindowState(b"a" * 32, 1, 9, 77, SLOTS), WindowState(b"b" * 32, 2**32 - 1, 2**63 - 1, -5, bytes(8192))


def state(*windows: WindowState, device_id: str = "tcu-0001", epoch: int = 1) -> DeviceState:
    scores = [ScoreState("bad_mac", 12.5, 6)]
    facts = ("watched", 5, 2, 7, "2026.44.1", "c0ffee", 8, 4, 3, ("2026.43.2", ""))
    return DeviceState("acme", device_id, epoch, *facts, scores, list(windows))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    opened = Checkpoint(tmp_path / "checkpoint.db")
    yield opened
    opened.close()


def test_a_device_comes_back_as_it_was_written(checkpoint: Checkpoint) -> None:
    """All fields, at the ends of their ranges too."""
    checkpoint.save([state(ONE, TWO)])
    assert checkpoint.device("acme", "tcu-0001") == state(ONE, TWO)


def test_a_file_of_a_former_fleetgate_is_read_and_written(tmp_path: Path) -> None:
    """Its devices have told neither key id nor software yet, and their score, one number then, is gone; what is saved
    over them has all."""
    former = sqlite3.connect(tmp_path / "checkpoint.db", isolation_level=None)
    former.execute(
        "CREATE TABLE devices (tenant TEXT NOT NULL, device_id TEXT NOT NULL, epoch INTEGER NOT NULL,"
        " state TEXT NOT NULL, state_at INTEGER NOT NULL, score REAL NOT NULL, scored_at INTEGER NOT NULL,"
        " PRIMARY KEY (tenant, device_id)) WITHOUT ROWID"
    )
    former.execute("INSERT INTO devices VALUES ('acme', 'tcu-0001', 1, 'watched', 5, 12.5, 6)")
    former.close()
    checkpoint = Checkpoint(tmp_path / "checkpoint.db")
    before = checkpoint.device("acme", "tcu-0001")
    checkpoint.save([state(ONE)])
    after = checkpoint.device("acme", "tcu-0001")
    checkpoint.close()
    untold = dict.fromkeys(("kid", "kid_at", "seen_at", "decided_at", "epoch_sent_at"), 0)
    plain = msgspec.structs.replace(state(), **untold, software="", issuer="", before_trouble=None, scores=[])
    assert (before, after) == (plain, state(ONE))


def test_an_unknown_device_has_no_state(checkpoint: Checkpoint) -> None:
    """Neither has a device of the same name in another tenant."""
    checkpoint.save([state(ONE)])
    assert (checkpoint.device("rival", "tcu-0001"), checkpoint.device("acme", "tcu-0002")) == (None, None)


def test_a_changed_device_replaces_its_former_state_whole(checkpoint: Checkpoint) -> None:
    """A window that was dropped does not come back from an older checkpoint; other devices keep theirs."""
    checkpoint.save([state(ONE, TWO), state(ONE, device_id="tcu-0002"), state(TWO, device_id="tcu-0003")])
    newer = msgspec.structs.replace(ONE, highest=10, slots=bytes(8192))
    changed = [state(TWO, epoch=7), state(newer, TWO, device_id="tcu-0003")]
    checkpoint.save(changed)
    found = [checkpoint.device("acme", name) for name in ("tcu-0001", "tcu-0002", "tcu-0003")]
    assert found == [changed[0], state(ONE, device_id="tcu-0002"), changed[1]]


def test_devices_whose_last_windows_are_dropped_have_none(checkpoint: Checkpoint) -> None:
    """Nothing that is kept is no reason to keep everything."""
    checkpoint.save([state(ONE, TWO)])
    checkpoint.save([state()])
    assert checkpoint.device("acme", "tcu-0001") == state()


def test_devices_of_very_many_windows_are_saved_too(checkpoint: Checkpoint) -> None:
    """More than one statement of SQLite has room for."""
    windows = [WindowState(bytes([n]) * 32, epoch, 0, 0, SLOTS) for n in range(100) for epoch in range(8)]
    devices = [state(*windows, device_id=f"tcu-{n}") for n in range(5)]
    checkpoint.save(devices)
    assert checkpoint.device("acme", "tcu-4") == devices[4]


def test_one_device_of_very_many_windows_is_saved_whole(checkpoint: Checkpoint) -> None:
    """Hundreds of keys: what a statement may bind is no bound on a device, and what it dropped is gone."""
    windows = [WindowState(n.to_bytes(32, "big"), epoch, 0, 0, SLOTS) for n in range(600) for epoch in range(8)]
    for kept in (windows, windows[1:], windows[-1:]):
        checkpoint.save([state(*kept)])
        assert checkpoint.device("acme", "tcu-0001") == state(*kept)


def test_a_part_that_fails_leaves_the_one_before(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The devices of one part change in one transaction, and the position not before it is told to."""
    checkpoint.save([state(ONE)])
    checkpoint.advance(1)
    broken = WindowState(b"x", 1, 2**63, 0, b"")  # does not fit the column
    with pytest.raises((SpoolError, OverflowError)):
        checkpoint.save([state(TWO), state(broken, device_id="tcu-0002")])
    checkpoint.close()
    again = Checkpoint(tmp_path / "checkpoint.db")
    assert (again.segment(), again.device("acme", "tcu-0001")) == (1, state(ONE))
    again.close()


def test_devices_are_saved_ahead_of_the_position(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Until all of them are in, a start replays from the old one."""
    checkpoint.advance(1)
    checkpoint.save([state(ONE)])
    checkpoint.close()
    again = Checkpoint(tmp_path / "checkpoint.db")
    assert (again.segment(), again.device("acme", "tcu-0001")) == (1, state(ONE))
    again.close()


def test_a_new_checkpoint_stands_before_the_first_segment(checkpoint: Checkpoint) -> None:
    """Number 0 means: replay everything."""
    assert checkpoint.segment() == 0


def test_a_read_never_sees_half_a_write(checkpoint: Checkpoint) -> None:
    """A look-up in another thread finds a device's windows all from one checkpoint."""
    found: list[DeviceState | None] = []
    checkpoint.save([state(ONE, epoch=0)])

    def read() -> None:
        while len(found) < 200:
            found.append(checkpoint.device("acme", "tcu-0001"))

    reader = threading.Thread(target=read)
    reader.start()
    epoch = 0
    while reader.is_alive():
        epoch += 1
        windows = [WindowState(bytes([key]) * 32, epoch, 0, 0, SLOTS) for key in range(4)]
        checkpoint.save([state(*windows, epoch=epoch)])
    reader.join()
    assert all(s is not None and (s.epoch == 0 or [w.epoch for w in s.windows] == [s.epoch] * 4) for s in found)


def test_a_file_that_is_no_database_ends_the_start(tmp_path: Path) -> None:
    """A damaged checkpoint is an error of the spool for a person, not a traceback."""
    (tmp_path / "checkpoint.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(SpoolError, match=r"cannot open .*checkpoint\.db"):
        Checkpoint(tmp_path / "checkpoint.db")


def test_a_position_is_synced_in_full_and_the_parts_before_it_are_not(checkpoint: Checkpoint) -> None:
    """Segments are deleted behind the position, so SQLite must not leave it in a cache; one sync takes all along."""

    def level() -> object:
        return checkpoint._database.rows("PRAGMA synchronous")[0][0]

    checkpoint.save([state(ONE)])
    of_a_part = level()
    checkpoint.advance(1)
    assert (of_a_part, level()) == (1, 2)


def test_an_error_of_the_disk_within_a_transaction_is_the_one_that_is_told(checkpoint: Checkpoint) -> None:
    """SQLite ends the transaction by itself then: that there is none to roll back is not what a person must read."""
    with checkpoint._database.reading() as db:
        db.execute("PRAGMA cache_size=1")  # so that it writes before the end of the transaction
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(SpoolError, match="disk I/O error; the edge stops"):
            checkpoint.save([state(ONE, TWO, device_id=f"tcu-{number}") for number in range(64)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.device("acme", "tcu-0") is None


def test_a_cursor_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """And there is none before the first."""
    before = read_cursor(tmp_path)
    write_cursor(tmp_path, Cursor("ab" * 16, 7, "cd" * 32))
    assert (before, read_cursor(tmp_path)) == (None, Cursor("ab" * 16, 7, "cd" * 32))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"spool":"a"}', b'{"spool":"a","segment":"x","sha256":""}', b"\xff"]
)
def test_a_file_that_is_no_cursor_is_an_error(tmp_path: Path, data: bytes) -> None:
    """Its loss is told, with what to do; it is never taken for the beginning."""
    (tmp_path / "cursor.json").write_bytes(data)
    with pytest.raises(SpoolError, match="remove it to load all segments again"):
        read_cursor(tmp_path)


def test_a_crash_while_replacing_a_file_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the new content is synced, the old file is untouched."""
    path = tmp_path / "cursor.json"
    replace_durably(path, b"old")

    def crash(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="Input/output"):
        replace_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_replaced_file_is_synced_before_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content, rename, directory: in this order, so that a crash leaves the old or the new file, never an empty one."""
    steps: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        steps.append("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "content")
        real_sync(descriptor)

    def rename(source: Path, target: Path) -> None:
        steps.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    replace_durably(tmp_path / "file", b"content")
    assert steps == ["content", "rename", "directory"]
