"""Commit, seal and delete: what is on the disk when each has returned, and what an error of the disk does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.spools import TRANSITION, OpenSpool, SetClock, sender
from tests.units import NOW

from fleetgate.errors import SpoolError
from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.home import Spool
from fleetgate.spool.reader import read_segment, segment_paths


def test_nothing_is_on_disk_before_the_commit(spool: OpenSpool) -> None:
    """Appending is in memory; the commit writes and syncs it all."""
    spool.write(1)
    before = spool.paths(".open")[0].stat().st_size
    spool.writer.commit()
    assert (before, spool.paths(".open")[0].stat().st_size) == (0, spool.writer.live_bytes)


def test_a_commit_syncs_once_whatever_the_number_of_records(spool: OpenSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Group commit: one fdatasync for all that was appended, none when nothing was."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    spool.write(100)
    spool.writer.commit()
    spool.writer.commit()
    assert len(synced) == 1


def test_a_sealed_segment_has_its_final_name_only_when_it_is_whole(spool: OpenSpool) -> None:
    """`.open` becomes `.seg` at the seal, and there is no live segment until the next append."""
    spool.write(1)
    names = [[path.name for path in spool.paths(suffix)] for suffix in (".open", ".seg")]
    spool.writer.seal()
    names += [[path.name for path in spool.paths(suffix)] for suffix in (".open", ".seg")]
    stem = f"{1:020d}"
    assert names == [[f"{stem}.open"], [], [], [f"{stem}.seg"]]


def test_sealing_nothing_is_nothing(spool: OpenSpool) -> None:
    """Without records there is no segment and no gap in the numbers."""
    assert (spool.writer.seal(), spool.writer.next_segment) == (None, 1)


def test_the_segment_that_follows_starts_empty(spool: OpenSpool) -> None:
    """Each segment's footer counts its own rows."""
    spool.write(2)
    spool.writer.transition(TRANSITION)
    spool.writer.seal()
    spool.write(1)
    spool.writer.seal()
    assert [s.footer.rows for s in spool.segments() if s.footer is not None] == [[2, 0, 1], [1, 0, 0]]


def test_no_segment_outgrows_its_size_by_more_than_a_record(tmp_path: Path, clock: SetClock) -> None:
    """However much arrives between two looks: what load has in memory at once is bounded."""
    home = Spool(tmp_path / "small", clock, os.urandom, segment_bytes=4096)
    for _ in range(40):
        home.writer.message(sender(), clock.ms, 1, 0, bytes(1000))
    home.writer.seal()
    sizes = [read_segment(path).good_bytes for _, path in segment_paths(tmp_path / "small" / "segments")]
    home.close()
    assert len(sizes) >= 9
    assert max(sizes) < 4096 + 3000


def test_the_age_of_the_live_segment_is_that_of_its_first_record(spool: OpenSpool, clock: SetClock) -> None:
    """The seal by age counts from the first record, and an empty spool has no age."""
    ages = [spool.writer.live_age_ms()]
    spool.write(1)
    clock.ms += 700
    spool.write(1, first=1)
    ages.append(spool.writer.live_age_ms())
    assert ages == [0, 700]


def test_the_age_of_the_live_segment_does_not_depend_on_wall_time(tmp_path: Path) -> None:
    """Set back an hour, the clock would keep what was received from load for an hour."""

    class SetBack(SetClock):
        def now_ms(self) -> int:
            return self.ms - 3_600_000 * (self.ms > NOW)

    clock = SetBack()
    spool = OpenSpool(tmp_path / "spool", clock)
    spool.write(1)
    clock.ms += 700
    assert spool.writer.live_age_ms() == 700
    spool.close()


def test_segments_are_deleted_behind_both_cursor_and_checkpoint(spool: OpenSpool) -> None:
    """What one of them has not passed stays."""
    for _ in range(4):
        spool.write(1)
        spool.writer.seal()
    identity = spool.home.identity.spool
    left = []
    for loaded, checkpoint in ((0, 4), (3, 0), (3, 2), (3, 3)):
        write_cursor(spool.directory, Cursor(identity, loaded, "00"))
        spool.home.checkpoint.advance(checkpoint)
        spool.home.delete_loaded()
        left.append(len(spool.paths()))
    assert left == [4, 4, 2, 1]


def test_the_size_of_the_spool_is_that_of_its_files(spool: OpenSpool) -> None:
    """Sealed and live bytes add up to what limits are held against."""
    spool.write(5)
    spool.writer.seal()
    spool.write(5)
    spool.writer.commit()
    on_disk = sum(path.stat().st_size for path in spool.paths() + spool.paths(".open"))
    assert spool.writer.total_bytes == on_disk


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["disk full", "disk broken"])
@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_an_error_of_write_or_sync_is_fatal(
    spool: OpenSpool, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    """The commit does not return, so nothing in it is acknowledged; the error says what to do."""
    spool.write(1)
    with monkeypatch.context() as broken:
        broken.setattr(os, call, failing(code))
        with pytest.raises(SpoolError, match="the edge stops, mend the disk"):
            spool.writer.commit()


def test_a_short_write_is_continued(spool: OpenSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take less than it was given; the rest follows."""
    kept = spool.write(20)
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    spool.writer.seal()
    monkeypatch.undo()
    assert spool.messages() == kept


def test_a_failed_open_is_fatal(spool: OpenSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that cannot be begun ends the edge as a failed write does."""
    with monkeypatch.context() as broken:
        broken.setattr(os, "open", failing(errno.EMFILE))
        with pytest.raises(SpoolError, match="cannot open"):
            spool.write(1, by=sender())


def test_after_an_error_of_the_disk_nothing_succeeds_any_more(
    spool: OpenSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second fdatasync can return although the first one lost the data: commit and seal go on failing."""
    spool.write(1)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", failing(errno.EIO))
        with pytest.raises(SpoolError):
            spool.writer.commit()
    for again in (spool.writer.commit, spool.writer.seal):
        with pytest.raises(SpoolError, match="mend the disk"):
            again()


def test_what_waits_for_load_is_counted_by_its_cursor(spool: OpenSpool) -> None:
    """A cursor of another spool, or one that cannot be believed, says nothing."""
    for _ in range(3):
        spool.write(1)
        spool.writer.seal()
    counts = [spool.home.waiting()]
    write_cursor(spool.directory, Cursor(spool.home.identity.spool, 2, "00"))
    counts.append(spool.home.waiting())
    write_cursor(spool.directory, Cursor("ab" * 16, 2, "00"))
    counts.append(spool.home.waiting())
    (spool.directory / "cursor.json").write_bytes(b"{")
    counts.append(spool.home.waiting())
    assert counts == [3, 1, 3, 0]
