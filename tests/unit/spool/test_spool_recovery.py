"""What a start finds after a kill: the lock, the cut and sealed live segment, the next number."""

from __future__ import annotations

import os
import subprocess
import sys
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs
from tests.spools import TRANSITION, OpenSpool, SetClock, sender

from fleetgate.errors import SpoolError
from fleetgate.spool import format as fmt
from fleetgate.spool import home
from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.home import Spool
from fleetgate.spool.reader import read_segment, read_segments
from fleetgate.spool.verify import verify
from fleetgate.spool.writer import recover_live

HOLD_THE_LOCK = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_edge_is_kept_off_a_spool(tmp_path: Path) -> None:
    """While another process holds the lock, opening ends with an error that says what to do."""
    OpenSpool(tmp_path, SetClock()).close()
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SpoolError, match=r"another edge holds .* stop it"):
            Spool(tmp_path, SetClock(), os.urandom)
        other.communicate("")


def test_a_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    """The lock ends with its process, however that ended; its file stays and means nothing."""
    OpenSpool(tmp_path, SetClock()).close()
    OpenSpool(tmp_path, SetClock()).close()
    assert (tmp_path / "lock").exists()


def test_what_was_committed_before_a_kill_is_sealed_at_the_start(spool: OpenSpool) -> None:
    """The live segment of the former edge becomes a segment for load; what was never committed is gone."""
    kept = spool.write(3)
    spool.writer.commit()
    spool.write(2, first=3)
    spool.reopen()
    assert (spool.messages(), spool.home.cut_bytes) == (kept, 0)


def live_segment(directory: Path) -> tuple[Path, bytes, list[bytes], int]:
    """A spool left with a committed live segment: its file, its bytes, its messages, where the last record starts."""
    spool = OpenSpool(directory, SetClock())
    who = sender()
    kept = spool.write(3, by=who)
    spool.writer.commit()
    start = spool.paths(".open")[0].stat().st_size
    kept += spool.write(1, first=3, by=who)
    spool.writer.commit()
    spool.close()
    path = spool.paths(".open")[0]
    return path, path.read_bytes(), kept, start


def test_a_live_segment_cut_inside_its_last_record_keeps_all_before_it(tmp_path: Path) -> None:
    """At every byte of the last record: what is recovered is a prefix of what was appended, sealed and whole."""
    path, data, kept, start = live_segment(tmp_path)
    sealed = path.with_suffix(".seg")
    for size in range(start, len(data) + 1):
        sealed.unlink(missing_ok=True)
        path.write_bytes(data[:size])
        spool = OpenSpool(tmp_path, SetClock())
        spool.close()
        expected = kept if size == len(data) else kept[:3]
        segment = read_segment(sealed)
        assert ([m.raw for m in segment.messages], segment.damaged) == (expected, []), f"cut at {size}"
        assert spool.home.cut_bytes == (0 if size == len(data) else size - start)


@pytest.mark.parametrize("tail", [bytes(1), bytes(8), bytes(9), bytes(4096), b"\xff" * 100, b"FGSPOOL1" * 9])
def test_what_a_torn_write_leaves_behind_the_last_record_is_cut(tmp_path: Path, tail: bytes) -> None:
    """Zeros of an extended file, or garbage, are never a record; the sealed file ends in its trailer."""
    path, data, kept, _ = live_segment(tmp_path)
    path.write_bytes(data + tail)
    spool = OpenSpool(tmp_path, SetClock())
    spool.close()
    assert (spool.messages(), spool.home.cut_bytes) == (kept, len(tail))
    assert path.with_suffix(".seg").read_bytes().endswith(b"FGSE")


@pytest.mark.parametrize("data", [b"", b"FGSP", bytes(44), bytes(4096)])
def test_a_live_segment_that_was_never_committed_is_removed(tmp_path: Path, data: bytes) -> None:
    """A kill between opening a segment and its first commit leaves nothing that was acknowledged."""
    OpenSpool(tmp_path, SetClock()).close()
    (tmp_path / "segments" / f"{1:020d}.open").write_bytes(data)
    spool = OpenSpool(tmp_path, SetClock())
    spool.close()
    assert (spool.paths(), spool.paths(".open"), spool.writer.next_segment) == ([], [], 1)


def test_a_kill_while_sealing_leaves_a_whole_segment(tmp_path: Path) -> None:
    """Cut at every byte of footer and trailer, or before the rename: the segment is sealed with both of them."""
    spool = OpenSpool(tmp_path, SetClock())
    kept = spool.write(2)
    spool.writer.transition(TRANSITION)
    spool.writer.seal()
    spool.close()
    sealed = spool.paths()[0]
    data = sealed.read_bytes()
    footer_at = fmt.footer_offset(memoryview(data))
    assert footer_at is not None
    for size in range(footer_at, len(data) + 1):
        sealed.unlink()
        sealed.with_suffix(".open").write_bytes(data[:size])
        OpenSpool(tmp_path, SetClock()).close()
        assert sealed.read_bytes() == data, f"cut at {size}"
    assert spool.messages() == kept


def test_recovery_may_itself_be_killed(tmp_path: Path) -> None:
    """Starting twice over the same cut segment gives the same segment as starting once."""
    path, data, _, _ = live_segment(tmp_path)
    path.write_bytes(data[:-1])
    OpenSpool(tmp_path, SetClock()).close()
    sealed = path.with_suffix(".seg")
    once = sealed.read_bytes()
    sealed.rename(path)
    OpenSpool(tmp_path, SetClock()).close()
    assert sealed.read_bytes() == once


def test_a_live_copy_does_not_take_the_place_of_the_segment_it_became(spool: OpenSpool) -> None:
    """It was made before the rest was acknowledged, and is put back beside the sealed one: it goes to parked/."""
    who = sender()
    kept = spool.write(2, by=who)
    spool.writer.commit()
    [live] = spool.paths(".open")
    copy = live.read_bytes()
    kept += spool.write(3, first=2, by=who)
    spool.writer.seal()
    spool.leave()
    live.write_bytes(copy + b"torn")
    assert any("beside the sealed segment" in line for line in verify(spool.directory).trouble)
    spool.reopen()
    assert (spool.messages(), spool.paths(".open")) == (kept, [])
    assert (spool.directory / "parked" / live.name).read_bytes() == copy + b"torn"


def test_a_live_segment_that_is_not_all_in_the_sealed_one_ends_the_start(spool: OpenSpool) -> None:
    """Nobody knows which of the two was acknowledged; a person decides, or a repair sets it aside."""
    spool.write(2)
    spool.writer.seal()
    spool.leave()
    [sealed] = spool.paths()
    other = OpenSpool(spool.directory.parent / "other", SetClock())
    other.write(3)
    other.writer.commit()
    other.leave()
    sealed.with_suffix(".open").write_bytes(other.paths(".open")[0].read_bytes())
    with pytest.raises(SpoolError, match=r"stands beside .* not have all of it: take away"):
        recover_live(spool.directory)


def test_a_start_deletes_what_it_may_before_it_needs_room(spool: OpenSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may be full, and what recovery writes needs the room of what load and checkpoint have."""
    for _ in range(4):
        spool.write(1)
        spool.writer.seal()
    spool.write(1)
    spool.writer.commit()
    spool.home.checkpoint.advance(3)
    write_cursor(spool.directory, Cursor(spool.home.identity.spool, 2, "00"))
    left: list[str] = []

    def recovers(directory: Path) -> int:
        left.extend(sorted(path.name[-6:] for path in (directory / "segments").iterdir()))
        return recover_live(directory)

    monkeypatch.setattr(home, "recover_live", recovers)
    spool.reopen()
    assert left == ["03.seg", "04.seg", "5.open"]


def test_a_cursor_ahead_of_everything_deletes_nothing_at_a_start(spool: OpenSpool) -> None:
    """It cannot be true; the start ends, and all is there for a repair."""
    spool.write(1)
    spool.writer.seal()
    spool.home.checkpoint.advance(1)
    write_cursor(spool.directory, Cursor(spool.home.identity.spool, 9, "00"))
    with pytest.raises(SpoolError, match="is missing behind the checkpoint"):
        spool.reopen()
    assert len(spool.paths()) == 1


def test_numbers_count_on_after_a_start(spool: OpenSpool) -> None:
    """The next segment is one above the highest there is, live or sealed."""
    spool.write(1)
    spool.writer.seal()
    spool.write(1)
    spool.writer.commit()
    spool.reopen()
    spool.write(1)
    assert [spool.writer.seal(), len(spool.paths())] == [3, 3]


def test_numbers_count_on_after_all_segments_were_deleted(spool: OpenSpool) -> None:
    """The checkpoint remembers the last number: a segment's name is never given twice."""
    for _ in range(3):
        spool.write(1)
        spool.writer.seal()
    spool.home.checkpoint.advance(3)
    spool.writer.delete_through(3)
    spool.reopen()
    assert (spool.paths(), spool.writer.next_segment) == ([], 4)


def lose_the_checkpoint(spool: OpenSpool) -> None:
    """As if `checkpoint.db` had been deleted after segments behind it were."""
    write_cursor(spool.directory, Cursor(spool.home.identity.spool, 2, "00"))
    spool.writer.delete_through(2)
    (spool.directory / "checkpoint.db").unlink()


def lose_a_segment(spool: OpenSpool) -> None:
    spool.paths()[1].unlink()


def lose_the_identity(spool: OpenSpool) -> None:
    (spool.directory / "identity").unlink()


def lose_all_but_the_identity(spool: OpenSpool) -> None:
    for path in [*spool.paths(), *spool.directory.glob("checkpoint.db*")]:
        path.unlink()


@pytest.mark.parametrize("lose", [lose_the_checkpoint, lose_a_segment, lose_the_identity, lose_all_but_the_identity])
def test_a_spool_that_is_not_whole_does_not_open(spool: OpenSpool, lose: Callable[[OpenSpool], None]) -> None:
    """Its windows would be other than they were, and what was acknowledged before would be taken again as new."""
    for _ in range(3):
        spool.write(1)
        spool.writer.seal()
    lose(spool)
    spool.close()
    with pytest.raises(SpoolError, match=r"is missing .* restore"):
        Spool(spool.directory, SetClock(), os.urandom)


def test_a_spool_killed_while_it_is_begun_is_begun_again(tmp_path: Path) -> None:
    """Its identity is written last: a checkpoint without one, in which nothing is, is no loss."""
    OpenSpool(tmp_path, SetClock()).close()
    (tmp_path / "identity").unlink()
    OpenSpool(tmp_path, SetClock()).close()
    assert (tmp_path / "identity").exists()


def test_a_checkpoint_without_an_identity_is_no_new_spool(tmp_path: Path) -> None:
    """Where it stands at a segment, numbers were given, though all segments are deleted by now."""
    spool = OpenSpool(tmp_path, SetClock())
    spool.home.checkpoint.advance(3)
    spool.close()
    (tmp_path / "identity").unlink()
    with pytest.raises(SpoolError, match="identity is missing"):
        Spool(tmp_path, SetClock(), os.urandom)


def test_a_cursor_that_cannot_be_believed_deletes_nothing(spool: OpenSpool) -> None:
    """A flipped digit, or a number that was never given: the segments stay, and a person is told."""
    spool.write(1)
    spool.writer.seal()
    spool.home.checkpoint.advance(1)
    path = spool.directory / "cursor.json"
    write_cursor(spool.directory, Cursor(spool.home.identity.spool, 9, "00"))
    with pytest.raises(SpoolError, match="never written"):
        spool.home.delete_loaded()
    path.write_bytes(path.read_bytes().replace(b'"segment":9', b'"segment":1'))
    with pytest.raises(SpoolError, match="checksum"):
        spool.home.delete_loaded()
    spool.reopen()
    assert len(spool.paths()) == 1


def test_the_cursor_of_another_spool_counts_for_nothing(spool: OpenSpool) -> None:
    """After a restored or replaced disk, a cursor left beside it neither numbers nor deletes this spool's segments."""
    spool.write(1)
    spool.writer.seal()
    spool.home.checkpoint.advance(1)
    write_cursor(spool.directory, Cursor("ff" * 16, 900, "00"))
    spool.reopen()
    assert (spool.home.delete_loaded(), spool.writer.next_segment) == (0, 2)


def test_the_identity_is_made_once(spool: OpenSpool) -> None:
    """Every start of a spool has the identity of the first."""
    before = spool.home.identity
    spool.reopen()
    assert spool.home.identity == before


def test_a_damaged_identity_ends_the_start(spool: OpenSpool) -> None:
    """It names every segment, so it is restored and not made anew."""
    (spool.directory / "identity").write_bytes(b"{")
    with pytest.raises(SpoolError, match="restore it"):
        spool.reopen()


def test_a_segment_that_cannot_be_read_ends_the_start(spool: OpenSpool) -> None:
    """Its messages would otherwise count as never received, and be accepted again."""
    spool.write(1)
    spool.writer.seal()
    spool.paths()[0].write_bytes(b"")
    with pytest.raises(SpoolError, match="restore it"):
        list(read_segments(spool.directory / "segments", 0))


def test_a_disk_that_cannot_be_read_ends_the_start(spool: OpenSpool) -> None:
    """Of a segment and of the cursor: with the file and what the disk says, not as an unexpected error."""
    (spool.directory / "segments" / f"{1:020d}.seg").mkdir()
    (spool.directory / "cursor.json").mkdir()
    with pytest.raises(SpoolError, match=r"\.seg cannot be read \(Is a directory\): mend the disk"):
        list(read_segments(spool.directory / "segments", 0))
    with pytest.raises(SpoolError, match=r"cursor.json cannot be read \(Is a directory\): mend the spool's disk"):
        spool.home.delete_loaded()


def test_only_segments_behind_the_checkpoint_are_read_again(spool: OpenSpool) -> None:
    """Recovery starts after the number that the checkpoint stands for."""
    for _ in range(3):
        spool.write(1, by=sender())
        spool.writer.seal()
    numbers = [segment.header.segment for segment in read_segments(spool.directory / "segments", 1)]
    assert numbers == [2, 3]


def test_a_damaged_record_of_a_segment_killed_before_its_name_is_cut_like_any_live_one(tmp_path: Path) -> None:
    """Footer and trailer are there, only the renaming is missing; but a device could have sent what looks like them."""
    spool = OpenSpool(tmp_path, SetClock())
    kept = spool.write(6)
    spool.writer.seal()
    [path] = spool.paths(".seg")
    spool.close()
    data = bytearray(path.read_bytes())
    data[data.index(kept[2]) + 5] ^= 1
    path.unlink()
    path.with_suffix(".open").write_bytes(data)
    again = OpenSpool(tmp_path, SetClock())
    stored = again.messages()
    again.close()
    assert stored == kept[:2]
    assert kept[5] in (tmp_path / "parked" / f"{path.stem}.tail").read_bytes()


def test_a_torn_message_that_ends_in_a_footer_of_its_own_is_cut(tmp_path: Path) -> None:
    """A device that knows where its bytes will stand, and even the seed, writes a record of another car, a footer that
    leads to it, and a trailer; the write is torn right behind them. Nothing of it may be believed."""
    spool, clock = OpenSpool(tmp_path, SetClock()), SetClock()
    spool.writer.message(sender(1), clock.ms, 1, 0, b"honest")
    spool.writer.commit()
    seed = read_segment(spool.paths(".open")[0]).header.seed
    probe = fmt.pack_record(fmt.PEER, structs.replace(sender(2).facts, ref=1), seed)
    start = spool.writer.live_bytes + len(probe) + fmt.MESSAGE_OVERHEAD_BYTES
    forged: list[bytes] = []
    fmt.pack_message(forged, 0, clock.ms, 1, 0, b"forged under the other's certificate", seed)
    record = b"".join(forged)
    footer = fmt.pack_record(fmt.FOOTER, fmt.Footer(1, array("I", [start]).tobytes(), [], [1, 0, 0]), seed)
    raw = record + footer + fmt.pack_trailer(start + len(record))
    spool.writer.message(sender(2), clock.ms, 1, 0, raw + bytes(1000))
    spool.writer.commit()
    spool.close()
    [path] = spool.paths(".open")
    assert path.read_bytes()[start : start + len(raw)] == raw
    path.write_bytes(path.read_bytes()[: start + len(raw)])
    again = OpenSpool(tmp_path, SetClock())
    again.close()
    assert (again.messages(), again.home.cut_bytes) == ([b"honest"], fmt.MESSAGE_OVERHEAD_BYTES + len(raw))


def test_recovery_writes_what_it_keeps_into_another_file(tmp_path: Path) -> None:
    """A sync of the old one could succeed without bytes that an earlier one failed to write."""
    path, _, kept, _ = live_segment(tmp_path)
    with path.open("rb") as old:
        before = os.fstat(old.fileno()).st_ino
        spool = OpenSpool(tmp_path, SetClock())
        spool.close()
        assert path.with_suffix(".seg").stat().st_ino != before  # which is still open, and so not given again
    assert spool.messages() == kept


def test_what_recovery_cuts_is_kept_for_a_person(tmp_path: Path) -> None:
    """Bytes behind the first damaged record go to parked/, where nothing deletes them."""
    path, data, kept, last = live_segment(tmp_path)
    path.write_bytes(data[: last + 9])
    OpenSpool(tmp_path, SetClock()).close()
    tail = tmp_path / "parked" / f"{path.stem}.tail"
    assert (tail.read_bytes(), bool(kept)) == (data[last : last + 9], True)
