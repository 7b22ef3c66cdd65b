"""`verify` finds what is wrong with a spool, and nothing in one that is whole, whether an edge runs or not."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.segments import SpoolOnDisk, rows_body, sample
from tests.spools import alter_identity

from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.places import holes
from fleetgate.spool.verify import Report, verify


class Standing(SpoolOnDisk):
    """Segments 3 to 5: what came before is loaded, checkpointed and deleted; 3 is loaded too."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.writer.next_segment = 3
        for _ in range(3):
            self.message(rows_body(sample(0, s1=1.0)))
            self.seal()
        checkpoint = Checkpoint(directory / "checkpoint.db")
        checkpoint.advance(4)
        checkpoint.close()
        digest = hashlib.sha256(self.path(3).read_bytes()).hexdigest()
        write_cursor(directory, Cursor(self.identity.hex(), 3, digest))

    def path(self, number: int) -> Path:
        return self.directory / "segments" / f"{number:020d}.seg"

    def flip(self, number: int, at: int) -> None:
        data = bytearray(self.path(number).read_bytes())
        data[at] ^= 1
        self.path(number).write_bytes(data)

    def report(self) -> Report:
        return verify(self.directory)


@pytest.fixture
def spool(tmp_path: Path) -> Standing:
    return Standing(tmp_path / "spool")


def test_a_whole_spool_is_good(spool: Standing) -> None:
    """Nothing is said of segments that were deleted behind cursor and checkpoint."""
    report = spool.report()
    assert (report.good, report.segments, report.records, report.notes) == (True, 3, 6, [])


def test_a_live_segment_that_is_being_written_is_good(spool: Standing) -> None:
    """Also in the middle of a write, which is noted and is no fault."""
    spool.message(rows_body(sample(0, s1=1.0)))
    spool.writer.commit()
    assert spool.report().good
    live = spool.path(6).with_suffix(".open")
    live.write_bytes(live.read_bytes()[:-3])
    report = spool.report()
    assert (report.good, "under way" in report.notes[0]) == (True, True)


def test_a_damaged_record_is_told_with_its_byte(spool: Standing) -> None:
    """Which segment, where it stops being good, how many records are gone."""
    data = spool.path(4).read_bytes()
    spool.flip(4, data.index(b"sample"))
    [finding] = spool.report().findings
    start = 44 + 9 + int.from_bytes(data[48:52], "little")
    assert (finding.segment, finding.stops_at, finding.lost_records, finding.exact) == (4, start, 1, True)


def test_a_damaged_parked_segment_is_found_too(spool: Standing) -> None:
    """What load set aside is still what somebody sent."""
    (spool.directory / "parked").mkdir()
    (spool.directory / "parked" / spool.path(4).name).write_bytes(spool.path(4).read_bytes()[:-1])
    [finding] = spool.report().findings
    assert (finding.segment, finding.state, finding.lost_records) == (4, "parked", 0)


def lose_a_segment(spool: Standing) -> None:
    spool.path(4).unlink()


def lose_the_first(spool: Standing) -> None:
    spool.path(3).unlink()
    spool.path(4).unlink()


def lose_all_segments(spool: Standing) -> None:
    shutil.rmtree(spool.directory / "segments")


def alter_the_identity(spool: Standing) -> None:
    alter_identity(spool.directory, spool="ab" * 16)
    (spool.directory / "cursor.json").unlink()


def swap_two_segments(spool: Standing) -> None:
    four, five = spool.path(4).read_bytes(), spool.path(5).read_bytes()
    spool.path(4).write_bytes(five)
    spool.path(5).write_bytes(four)


def lose_the_identity(spool: Standing) -> None:
    (spool.directory / "identity").unlink()


def forge_the_fence(spool: Standing) -> None:
    """One bit of one digit."""
    path = spool.directory / "identity"
    alter_identity(spool.directory, fence_ms=1_700_000_000_000)
    path.write_text(path.read_text().replace("1700000000000", "1300000000000"))


def garble_the_identity(spool: Standing) -> None:
    path = spool.directory / "identity"
    path.write_text(path.read_text().replace(spool.identity.hex()[:4], "zzzz"))


def damage_the_identity(spool: Standing) -> None:
    (spool.directory / "identity").write_bytes(b"{")


def lose_the_checkpoint(spool: Standing) -> None:
    (spool.directory / "checkpoint.db").unlink()


def damage_the_checkpoint(spool: Standing) -> None:
    (spool.directory / "checkpoint.db").write_bytes(b"SQLite format 3\0" + bytes(4096))


def damage_the_cursor(spool: Standing) -> None:
    path = spool.directory / "cursor.json"
    path.write_bytes(path.read_bytes().replace(b'"segment":3', b'"segment":4'))


def change_what_was_loaded(spool: Standing) -> None:
    spool.path(3).write_bytes(spool.path(4).read_bytes())


def bring_a_segment_from_elsewhere(spool: Standing) -> None:
    other = SpoolOnDisk(spool.directory.parent / "other", "other")
    other.message(rows_body(sample(0, s1=1.0)))
    spool.path(6).write_bytes(other.seal().read_bytes())


def move_the_cursor_ahead(spool: Standing) -> None:
    write_cursor(spool.directory, Cursor(spool.identity.hex(), 9, "00"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lose_a_segment, "segment 4 is missing"),
        (lose_the_first, "segment 4 is missing"),
        (lose_all_segments, "segments is missing"),
        (alter_the_identity, "no segment is of that spool"),
        (swap_two_segments, "is segment 5"),
        (lose_the_identity, "identity is missing"),
        (damage_the_identity, "is damaged"),
        (garble_the_identity, "is damaged"),
        (forge_the_fence, "is damaged"),
        (lose_the_checkpoint, "checkpoint.db is missing"),
        (damage_the_checkpoint, "checkpoint.db"),
        (damage_the_cursor, "checksum is wrong"),
        (bring_a_segment_from_elsewhere, "belongs to another spool"),
        (bring_a_segment_from_elsewhere, "is segment 1"),
        (move_the_cursor_ahead, "the last one written is 5"),
    ],
)
def test_what_is_wrong_with_the_whole_is_told(spool: Standing, spoil: Callable[[Standing], None], told: str) -> None:
    """Files that are missing, damaged, from elsewhere, or do not fit each other."""
    spoil(spool)
    report = spool.report()
    assert not report.good
    assert any(told in line for line in report.trouble), report.trouble


def test_what_was_loaded_and_is_another_file_now_needs_nothing(spool: Standing) -> None:
    """It is told, apart from what somebody has to mend."""
    change_what_was_loaded(spool)
    report = spool.report()
    assert not report.good
    assert "is another file now: ClickHouse has what was loaded" in report.loaded[0]


@pytest.mark.parametrize(
    ("numbers", "first", "last", "expected"),
    [
        ({3, 4, 5}, 3, 5, []),
        ({3, 5}, 3, 5, [(4, 4)]),
        ({5}, 3, 5, [(3, 4)]),
        ({2, 3}, 3, 3, []),
        ({1, 3}, 3, 3, [(2, 2)]),
        (set(), 4, 3, []),
        (set(), 4, 6, [(4, 6)]),
    ],
)
def test_holes(numbers: set[int], first: int, last: int, expected: list[tuple[int, int]]) -> None:
    """Between the first number that must be there, or the lowest that is, and the last."""
    assert holes(numbers, first, last) == expected
