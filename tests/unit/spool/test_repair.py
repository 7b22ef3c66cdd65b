"""A repaired spool opens, verifies, and has kept every good record; what it cannot know any more is behind a fence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.spools import OpenSpool, SetClock
from tests.unit.spool.test_verify_spool import (
    Standing,
    damage_the_checkpoint,
    damage_the_cursor,
    damage_the_identity,
    lose_a_segment,
    lose_the_checkpoint,
    lose_the_first,
    lose_the_identity,
    move_the_cursor_ahead,
)

from fleetgate.errors import NotFound, SpoolError
from fleetgate.spool.custody import held
from fleetgate.spool.home import Spool
from fleetgate.spool.identity import read_identity
from fleetgate.spool.reader import read_segment, read_segments, segment_paths
from fleetgate.spool.repair import MOST_HOLES, Repair
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
        (lose_the_identity, 1, 0),
        (damage_the_identity, 1, 0),
        (damage_the_cursor, 1, 0),
        (lose_the_checkpoint, 3, FENCE),
        (damage_the_checkpoint, 3, FENCE),
    ],
)
def test_a_lost_file_is_made_again(
    spool: Standing, spoil: Callable[[Standing], None], messages: int, fence: int
) -> None:
    """Numbers go on and the records are replayed; a fence is needed only without the windows."""
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


def test_too_many_missing_segments_are_another_disk(spool: Standing) -> None:
    """A bogus cursor does not fill the disk with empty segments."""
    spool.path(5).rename(spool.path(5 + MOST_HOLES * 2))
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
