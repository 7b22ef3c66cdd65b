"""A repaired spool opens, verifies, and has kept every good record; what it cannot know any more is behind a fence."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.segments import SpoolOnDisk, rows_body, sample
from tests.spools import OpenSpool, SetClock
from tests.unit.spool.test_verify_spool import (
    Standing,
    alter_the_identity,
    bring_a_segment_from_elsewhere,
    damage_the_checkpoint,
    damage_the_cursor,
    damage_the_identity,
    forge_the_fence,
    lose_a_segment,
    lose_all_segments,
    lose_the_checkpoint,
    lose_the_first,
    lose_the_identity,
    move_the_cursor_ahead,
    swap_two_segments,
)

from fleetgate.errors import NotFound, SpoolError
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.custody import held
from fleetgate.spool.home import Known, Spool
from fleetgate.spool.identity import read_identity
from fleetgate.spool.reader import read_segment, read_segments, segment_paths
from fleetgate.spool.repair import MOST_HOLES, Repair
from fleetgate.spool.requests import asked
from fleetgate.spool.verify import verify
from fleetgate.spool.writer import recover_live


@pytest.fixture
def spool(tmp_path: Path) -> Standing:
    return Standing(tmp_path / "spool")


def repair(directory: Path, *, only: int | None = None, restored: bool = False) -> int:
    """How many steps it took."""
    with held(directory) as custody:
        steps = Repair(custody, SetClock(), os.urandom, only=only, restored=restored).steps
        for step in steps:
            step.act()
        return len(steps)


def opened(directory: Path) -> tuple[int, int, int]:
    """As an edge opens it: the next number, its messages, and the fence."""
    spool = Spool(directory, SetClock(), os.urandom)
    segments = list(read_segments(directory / "segments", spool.checkpoint.segment()))
    spool.close()
    return spool.writer.next_segment, sum(len(s.messages) for s in segments), spool.identity.fence_ms


def test_a_whole_spool_needs_no_repair(spool: Standing) -> None:
    """And is not touched."""
    before = {path: path.read_bytes() for path in spool.directory.rglob("*") if path.is_file()}
    assert repair(spool.directory) == 0
    assert {path: path.read_bytes() for path in before} == before


FENCE = SetClock().ms + 60_000


@pytest.mark.parametrize(
    ("spoil", "messages", "fence"),
    [
        (lose_the_identity, 1, FENCE),
        (damage_the_identity, 1, FENCE),
        (alter_the_identity, 1, FENCE),
        (forge_the_fence, 1, FENCE),
        (damage_the_cursor, 1, 0),
        (lose_the_checkpoint, 3, FENCE),
        (damage_the_checkpoint, 3, FENCE),
    ],
)
def test_a_lost_file_is_made_again(
    spool: Standing, spoil: Callable[[Standing], None], messages: int, fence: int
) -> None:
    """Numbers go on and the records are replayed; a fence is needed without the windows, or where one may be lost."""
    spoil(spool)
    repair(spool.directory)
    assert opened(spool.directory) == (6, messages, fence)
    assert verify(spool.directory).trouble == []
    assert read_identity(spool.directory).spool == spool.identity.hex()  # type: ignore[union-attr]


def lose_what_is_behind_the_checkpoint(spool: Standing) -> None:
    spool.path(5).unlink()
    spool.writer.next_segment = 6
    spool.message(b"\x93\xa0\xa0\x90")
    spool.seal()


def empty_a_segment(spool: Standing) -> None:
    spool.path(5).write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "next_segment"),
    [(lose_what_is_behind_the_checkpoint, 7), (empty_a_segment, 6), (move_the_cursor_ahead, 10)],
)
def test_an_empty_segment_stands_for_a_missing_one(
    spool: Standing, spoil: Callable[[Standing], None], next_segment: int
) -> None:
    """The spool opens with the numbers it had, and refuses what was sent before it was repaired."""
    spoil(spool)
    repair(spool.directory)
    number, _, fence = opened(spool.directory)
    assert (number, fence) == (next_segment, FENCE)
    assert repair(spool.directory) == 0


@pytest.mark.parametrize("spoil", [lose_a_segment, lose_the_first])
def test_a_missing_segment_that_is_in_the_checkpoint_needs_no_fence(
    spool: Standing, spoil: Callable[[Standing], None]
) -> None:
    """The windows have it; only load misses it, and tells."""
    spoil(spool)
    repair(spool.directory)
    assert opened(spool.directory) == (6, 1, 0)


def test_a_missing_segment_that_is_in_the_checkpoint_and_was_not_loaded_is_told_once(spool: Standing) -> None:
    """An empty one stands for it, so that load counts what is gone, and the spool is as it should be again."""
    write_cursor(spool.directory, Cursor(spool.identity.hex(), 2, "00" * 32))
    lose_a_segment(spool)
    assert (repair(spool.directory), repair(spool.directory)) == (1, 0)
    assert verify(spool.directory).trouble == []
    assert read_segment(spool.path(4)).lost


def test_what_is_put_back_behind_the_cursor_is_handed_to_load_again(spool: Standing) -> None:
    """Load passed over the hole and never looks there again; the edge deletes what is behind the cursor."""
    was = spool.path(4).read_bytes()
    (spool.directory / "parked").mkdir(exist_ok=True)
    spool.path(4).rename(spool.directory / "parked" / f"{4:020d}.seg.damaged")
    digest = hashlib.sha256(spool.path(5).read_bytes()).hexdigest()
    write_cursor(spool.directory, Cursor(spool.identity.hex(), 5, digest))
    repair(spool.directory)
    [asked_for] = asked(spool.directory / "parked")
    assert (asked_for.read_bytes(), verify(spool.directory).trouble) == (was, [])


def test_a_repair_killed_while_it_makes_a_checkpoint_is_begun_again(
    spool: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that stood at 0 would have all segments before it missing, and more than a repair may make."""
    lose_the_checkpoint(spool)
    monkeypatch.setattr(Checkpoint, "advance", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        repair(spool.directory)
    monkeypatch.undo()
    repair(spool.directory)
    assert opened(spool.directory) == (6, 3, FENCE)


def test_a_strangers_segment_in_parked_does_not_name_the_spool(spool: Standing) -> None:
    """Load set it aside as misplaced; its number may be any."""
    stranger = SpoolOnDisk(spool.directory.parent / "stranger", "stranger")
    stranger.writer.next_segment = 99
    stranger.message(rows_body(sample(0, s1=1.0)))
    path = stranger.seal()
    (spool.directory / "parked").mkdir()
    path.rename(spool.directory / "parked" / path.name)
    (spool.directory / "parked" / f"{99:020d}.error.json").write_text('{"why": "misplaced", "error": ""}')
    lose_the_identity(spool)
    repair(spool.directory)
    identity = read_identity(spool.directory)
    assert identity is not None
    assert (identity.spool, identity.former, opened(spool.directory)[0]) == (spool.identity.hex(), [], 6)


def test_an_identity_of_an_earlier_fleetgate_gets_its_checksum_at_the_start(spool: Standing) -> None:
    """Without one it is read as it is."""
    path = spool.directory / "identity"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index(b',"crc32"')] + b"}")
    assert read_identity(spool.directory) is not None
    opened(spool.directory)
    assert path.read_bytes() == whole


def lose_all_but_the_identity(spool: Standing) -> None:
    for path in [*(spool.directory / "segments").iterdir(), *spool.directory.glob("checkpoint.db*")]:
        path.unlink()
    (spool.directory / "cursor.json").unlink()


def test_a_spool_without_anything_left_begins_above_what_is_parked(spool: Standing) -> None:
    """Names of segments in parked/ stay theirs."""
    (spool.directory / "parked").mkdir(exist_ok=True)
    spool.path(5).rename(spool.directory / "parked" / spool.path(5).name)
    lose_all_but_the_identity(spool)
    repair(spool.directory)
    assert opened(spool.directory) == (6, 0, FENCE)


def test_a_damaged_identity_alone_is_replaced(spool: Standing) -> None:
    """The edge sends a person here: there must be something to do."""
    lose_all_but_the_identity(spool)
    damage_the_identity(spool)
    repair(spool.directory)
    assert opened(spool.directory) == (1, 0, FENCE)


def test_segments_that_changed_places_change_them_again(spool: Standing) -> None:
    """By what their headers say; nothing is lost, and an interrupted repair is done by the next."""
    was = {number: spool.path(number).read_bytes() for number in (4, 5)}
    swap_two_segments(spool)
    with pytest.raises(SpoolError, match="without naming a segment"):
        repair(spool.directory, only=5)
    repair(spool.directory)
    assert {number: spool.path(number).read_bytes() for number in (4, 5)} == was
    assert (verify(spool.directory).good, repair(spool.directory)) == (True, 0)
    assert opened(spool.directory) == (6, 1, 0)


def test_a_live_copy_beside_its_sealed_segment_is_set_aside(spool: Standing) -> None:
    """However much it has: the sealed one stays, which load may have."""
    sealed = spool.path(5).read_bytes()
    spool.path(5).with_suffix(".open").write_bytes(sealed[:-20])
    assert (repair(spool.directory), repair(spool.directory)) == (1, 0)
    assert (opened(spool.directory), spool.path(5).read_bytes()) == ((6, 1, 0), sealed)
    assert (spool.directory / "parked" / f"{5:020d}.open.damaged").read_bytes() == sealed[:-20]


def test_a_segment_from_elsewhere_is_set_aside(spool: Standing) -> None:
    """And kept; nothing stands for it, as its number was never given here."""
    bring_a_segment_from_elsewhere(spool)
    was = spool.path(6).read_bytes()
    assert repair(spool.directory) == 1
    assert opened(spool.directory) == (6, 1, 0)
    assert (spool.directory / "parked" / f"{6:020d}.seg.damaged").read_bytes() == was


def copy_a_segment_over_its_neighbour(spool: Standing) -> None:
    spool.path(5).write_bytes(spool.path(4).read_bytes())


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (bring_a_segment_from_elsewhere, "belongs to another spool"),
        (alter_the_identity, "belongs to another spool"),
        (copy_a_segment_over_its_neighbour, "is segment 4"),
        (swap_two_segments, "is segment 5"),
    ],
)
def test_an_edge_does_not_open_beside_segments_that_are_others(
    spool: Standing, spoil: Callable[[Standing], None], told: str
) -> None:
    """The windows would not have what is in the right ones; those of another spool load would set aside."""
    spoil(spool)
    with pytest.raises(SpoolError, match=f"{told}.*fleetgate spool repair"):
        opened(spool.directory)


def test_a_parked_file_of_another_number_gives_way_to_the_right_one(spool: Standing) -> None:
    """Load set both aside after they had changed places; a copy of each is found under the other's name."""
    parked = spool.directory / "parked"
    parked.mkdir(exist_ok=True)
    spool.path(4).rename(parked / spool.path(5).name)
    digest = hashlib.sha256(spool.path(5).read_bytes()).hexdigest()
    spool.path(5).rename(parked / spool.path(4).name)
    write_cursor(spool.directory, Cursor(spool.identity.hex(), 5, digest))
    assert repair(spool.directory) == 2 + 1  # and what is missing among segments/ is put back there too
    found = [read_segment(path).header.segment for _, path in segment_paths(parked)]
    assert (found, verify(spool.directory).trouble) == ([4, 5], [])


def test_a_spool_that_lost_the_directory_of_its_segments_is_not_opened(spool: Standing) -> None:
    """Numbers behind the checkpoint were given, and would be given again; repaired it has another identity."""
    lose_all_segments(spool)
    (spool.directory / "cursor.json").unlink()
    with pytest.raises(SpoolError, match="segments is missing"):
        opened(spool.directory)
    repair(spool.directory)
    assert opened(spool.directory) == (5, 0, FENCE)
    assert read_identity(spool.directory).former == [spool.identity.hex()]  # type: ignore[union-attr]


def test_too_many_missing_segments_are_another_disk(spool: Standing) -> None:
    """A bogus cursor does not fill the disk with empty segments."""
    write_cursor(spool.directory, Cursor(spool.identity.hex(), 5 + MOST_HOLES * 2, "00" * 32))
    with pytest.raises(SpoolError, match="another one"):
        repair(spool.directory)


def test_a_damaged_segment_keeps_its_good_records(spool: Standing) -> None:
    """The file as it was is kept; the same repair again finds nothing."""
    before = spool.path(5).read_bytes()
    spool.flip(5, before.index(b"sample"))
    damaged = spool.path(5).read_bytes()
    assert repair(spool.directory) == 1
    segment = read_segment(spool.path(5))
    assert (len(segment.messages), len(segment.lost), segment.damaged) == (0, 1, [])
    assert (spool.directory / "parked" / f"{5:020d}.damaged").read_bytes() == damaged
    assert repair(spool.directory) == 0
    assert verify(spool.directory).good


@pytest.mark.parametrize("block", [0, 1])
def test_a_sector_that_cannot_be_read_costs_what_lies_in_it(
    spool: Standing, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """The disk says EIO for it, until a repair has written the segment to another place."""
    for _ in range(200):
        spool.message(rows_body(sample(0, s1=1.0)))
    path = spool.seal()
    file, read_bytes, pread = path.stat().st_ino, Path.read_bytes, os.pread

    def read_but_for_it(asked: Path) -> bytes:
        if asked.stat().st_ino == file:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_bytes(asked)

    def pread_but_for_it(descriptor: int, size: int, at: int) -> bytes:
        if os.fstat(descriptor).st_ino == file and at == block * 4096:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, size, at)

    monkeypatch.setattr(Path, "read_bytes", read_but_for_it)
    monkeypatch.setattr(os, "pread", pread_but_for_it)
    [finding] = verify(spool.directory).findings
    assert (finding.segment, finding.exact) == (6, True)
    assert repair(spool.directory) >= 1
    segment = read_segment(path)
    assert (len(segment.messages) + finding.lost_records, segment.damaged) == (200, [])
    assert verify(spool.directory).good


@pytest.mark.parametrize("left", [0, 1, 2], ids=["nothing", "header and peer", "all records"])
def test_a_segment_that_was_cut_off_is_not_taken_for_whole(spool: Standing, left: int) -> None:
    """At the end of a record nothing looks damaged, and nobody knows how much is missing: at least one, it says."""
    segment = read_segment(spool.path(5))
    size = [0, int(segment.messages.offset[0]), segment.good_bytes][left]
    spool.path(5).write_bytes(spool.path(5).read_bytes()[:size])
    if size:
        assert read_segment(spool.path(5)).damaged
    [finding] = verify(spool.directory).findings
    assert (finding.segment, finding.lost_records, finding.exact) == (5, 1, False)
    assert repair(spool.directory) >= 1
    after = read_segment(spool.path(5))
    assert (len(after.messages), len(after.lost), after.damaged) == (left // 2, 1, [])
    assert verify(spool.directory).good


def test_one_segment_can_be_repaired_alone(spool: Standing) -> None:
    """The others stay as they are; a number that is not there is an error."""
    for number in (4, 5):
        spool.flip(number, spool.path(number).read_bytes().index(b"sample"))
    assert repair(spool.directory, only=5) == 1
    assert [finding.segment for finding in verify(spool.directory).findings] == [4]
    with pytest.raises(NotFound, match="no segment 9"):
        repair(spool.directory, only=9)


def test_a_damaged_live_segment_is_repaired_before_a_start_cuts_it(tmp_path: Path) -> None:
    """Only the damaged record is gone when the edge has started."""
    spool = OpenSpool(tmp_path, SetClock())
    kept = spool.write(5)
    spool.writer.commit()
    spool.close()
    [path] = spool.paths(".open")
    data = bytearray(path.read_bytes())
    data[data.index(kept[2]) + 3] ^= 1
    path.write_bytes(data)
    repair(tmp_path)
    again = OpenSpool(tmp_path, SetClock())
    again.close()
    assert (again.messages(), again.home.cut_bytes) == (kept[:2] + kept[3:], 0)


@pytest.mark.parametrize("byte", [0, 12, 30, 40])
def test_a_live_segment_whose_header_rotted_is_repaired_before_it_is_opened(tmp_path: Path, byte: int) -> None:
    """Its records may have been acknowledged: the edge does not start without them, and with them after a repair."""
    spool = OpenSpool(tmp_path, SetClock())
    kept = spool.write(3)
    spool.writer.commit()
    spool.close()
    [path] = spool.paths(".open")
    data = bytearray(path.read_bytes())
    data[byte] ^= 4
    path.write_bytes(data)
    with pytest.raises(SpoolError, match="good records behind it: run `fleetgate spool repair`"):
        recover_live(tmp_path)
    assert path.exists()
    repair(tmp_path)
    again = OpenSpool(tmp_path, SetClock())
    again.close()
    assert again.messages() == kept


def test_a_restored_spool_gets_new_names_and_a_fence(spool: Standing) -> None:
    """Segments from before keep theirs and are no strangers; numbers go on."""
    repair(spool.directory, restored=True)
    identity = read_identity(spool.directory)
    assert identity is not None
    assert (identity.former, identity.fence_ms) == ([spool.identity.hex()], FENCE)
    assert identity.spool != spool.identity.hex()
    assert opened(spool.directory) == (6, 1, FENCE)
    assert verify(spool.directory).trouble == []


def test_the_fence_of_a_repair_lies_behind_what_was_received(spool: Standing) -> None:
    """By what control knows, where the clock is behind; nobody else says, and a person is told so."""
    newest = SetClock().ms + 3_600_000
    with held(spool.directory) as custody:
        alone = Repair(custody, SetClock(), os.urandom, restored=True).steps
        told = Repair(custody, SetClock(), os.urandom, restored=True, known=[Known("ab" * 16, 3, True, newest)]).steps
    assert ["clock must be right" in steps[1].remedy for steps in (alone, told)] == [True, False]
    for step in told:
        step.act()
    assert opened(spool.directory)[2] == newest + 60_000


def test_what_load_may_have_of_a_damaged_segment_needs_a_fence(spool: Standing) -> None:
    """The one behind its cursor may be half inserted; of the one after that it has nothing."""
    for behind, fence in ((4, 0), (5, FENCE)):
        write_cursor(spool.directory, Cursor(spool.identity.hex(), behind - 1, "00" * 32))
        data = spool.path(5).read_bytes()
        spool.flip(5, data.index(b"sample"))
        repair(spool.directory)
        assert opened(spool.directory)[2] == fence
        spool.path(5).write_bytes(data)


def test_a_spool_of_which_only_the_identity_is_left_gets_another(spool: Standing) -> None:
    """Nothing says which numbers were given: under the old name they would be given again, to other segments."""
    lose_the_checkpoint(spool)
    for number in (3, 4, 5):
        spool.path(number).unlink()
    repair(spool.directory)
    identity = read_identity(spool.directory)
    assert identity is not None
    assert (identity.former, opened(spool.directory)) == ([spool.identity.hex()], (1, 0, FENCE))
    assert repair(spool.directory) == 0


def test_an_edge_that_runs_keeps_a_repair_away(spool: Standing) -> None:
    """Nothing is looked at while the lock is held."""
    edge = Spool(spool.directory, SetClock(), os.urandom)
    with pytest.raises(SpoolError, match="stop it first"), held(spool.directory):
        raise AssertionError("it went on")
    edge.close()


def test_a_directory_that_is_no_spool_is_left_alone(tmp_path: Path) -> None:
    """A mistyped setting makes no spool."""
    with pytest.raises(NotFound, match="no spool"), held(tmp_path / "elsewhere"):
        raise AssertionError("it went on")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("killed_after", range(4))
def test_a_repair_that_is_killed_is_done_by_the_next(spool: Standing, killed_after: int) -> None:
    """After any of its steps; the fence stands before the spool opens again."""
    lose_the_checkpoint(spool)
    lose_what_is_behind_the_checkpoint(spool)
    spool.flip(4, spool.path(4).read_bytes().index(b"sample"))
    with held(spool.directory) as custody:
        for step in Repair(custody, SetClock(), os.urandom).steps[:killed_after]:
            step.act()
    repair(spool.directory)
    assert opened(spool.directory) == (7, 2, FENCE)
    assert [number for number, _ in segment_paths(spool.directory / "segments")] == [3, 4, 5, 6]
