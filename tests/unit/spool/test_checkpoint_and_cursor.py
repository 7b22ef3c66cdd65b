"""The two positions that let segments go: what they hold, and that they change as a whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetgate.errors import SpoolError
from fleetgate.spool.checkpoint import Checkpoint, DeviceState, WindowState
from fleetgate.spool.cursor import Cursor, read_cursor, replace_durably, write_cursor
from fleetgate.spool.database import Database

SLOTS = bytes(range(256)) * 32
ONE, TWO = WindowState(b"a" * 32, 1, 9, 77, SLOTS), WindowState(b"b" * 32, 2**32 - 1, 2**63 - 1, -5, bytes(8192))


def state(*windows: WindowState, device_id: str = "tcu-0001", epoch: int = 1) -> DeviceState:
    return DeviceState("acme", device_id, epoch, "watched", 5, 12.5, 6, list(windows))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Iterator[Checkpoint]:
    opened = Checkpoint(tmp_path / "checkpoint.db")
    yield opened
    opened.close()


def test_a_device_comes_back_as_it_was_written(checkpoint: Checkpoint) -> None:
    """All fields, at the ends of their ranges too."""
    checkpoint.write(1, [state(ONE, TWO)])
    assert checkpoint.device("acme", "tcu-0001") == state(ONE, TWO)


def test_an_unknown_device_has_no_state(checkpoint: Checkpoint) -> None:
    """Neither has a device of the same name in another tenant."""
    checkpoint.write(1, [state(ONE)])
    assert (checkpoint.device("rival", "tcu-0001"), checkpoint.device("acme", "tcu-0002")) == (None, None)


def test_a_changed_device_replaces_its_former_state_whole(checkpoint: Checkpoint) -> None:
    """A window that was dropped does not come back from an older checkpoint; other devices keep theirs."""
    checkpoint.write(1, [state(ONE, TWO), state(ONE, device_id="tcu-0002")])
    checkpoint.write(2, [state(TWO, epoch=7)])
    found = [checkpoint.device("acme", name) for name in ("tcu-0001", "tcu-0002")]
    assert (found, checkpoint.segment()) == ([state(TWO, epoch=7), state(ONE, device_id="tcu-0002")], 2)


def test_a_checkpoint_that_fails_leaves_the_one_before(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Devices and position change in one transaction: a failure in the middle changes neither."""
    checkpoint.write(1, [state(ONE)])
    broken = WindowState(b"x", 1, 2**63, 0, b"")  # does not fit the column
    with pytest.raises((SpoolError, OverflowError)):
        checkpoint.write(2, [state(TWO), state(broken, device_id="tcu-0002")])
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
    checkpoint.write(0, [state(ONE, epoch=0)])

    def read() -> None:
        while len(found) < 200:
            found.append(checkpoint.device("acme", "tcu-0001"))

    reader = threading.Thread(target=read)
    reader.start()
    epoch = 0
    while reader.is_alive():
        epoch += 1
        windows = [WindowState(bytes([key]) * 32, epoch, 0, 0, b"") for key in range(4)]
        checkpoint.write(epoch, [state(*windows, epoch=epoch)])
    reader.join()
    assert all(s is not None and (s.epoch == 0 or [w.epoch for w in s.windows] == [s.epoch] * 4) for s in found)


def test_a_file_that_is_no_database_ends_the_start(tmp_path: Path) -> None:
    """A damaged checkpoint is an error of the spool for a person, not a traceback."""
    (tmp_path / "checkpoint.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(SpoolError, match=r"cannot open .*checkpoint\.db"):
        Checkpoint(tmp_path / "checkpoint.db")


def test_a_checkpoint_is_synced_in_full(tmp_path: Path) -> None:
    """Segments are deleted behind it, so SQLite must not leave it in a cache."""
    database = Database(tmp_path / "checkpoint.db", "")
    assert database.rows("PRAGMA synchronous") == [(2,)]
    database.close()


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
