"""What a damaged byte costs, and what a repair makes of the segment: tried at every byte of a small one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.segments import RECEIVED_AT, SpoolOnDisk, pack, peer, rows_body, sample
from tests.spools import rejection

from fleetgate.spool import format as fmt
from fleetgate.spool.examine import Examination, examine, repaired
from fleetgate.spool.reader import Segment, read_segment


class Small:
    """A sealed segment of two peers with messages, a rejection and a transition."""

    def __init__(self, directory: Path) -> None:
        self.spool = SpoolOnDisk(directory / "spool")
        for vehicle in ("one", "two", "one"):
            self.spool.message(rows_body(sample(0, s1=50.0)), sender=peer(vehicle))
        refused = rejection("bad_mac", 2, RECEIVED_AT, RECEIVED_AT, [(1, 2, 3)])
        self.spool.writer.rejection(self.spool.sender(peer("two")), refused)
        self.spool.transition()
        self.spool.message(rows_body(sample(0, s1=51.0)), sender=peer("two"))
        self.path = self.spool.seal()
        self.data = self.path.read_bytes()
        self.whole = read_segment(self.path)

    def examine(self, data: bytes, *, live: bool = False) -> Examination:
        return examine(data, [self.spool.identity], 1, live=live)

    def with_flips(self, *places: int) -> bytes:
        changed = bytearray(self.data)
        for at in places:
            changed[at] ^= 0x10
        return bytes(changed)

    def starts(self) -> list[int]:
        return [*self.whole.offsets, fmt.footer_offset(memoryview(self.data)) or 0]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def rows(segment: Segment) -> set[tuple[int, str]]:
    """What load takes from a segment, with the place it stands at."""
    found = {(message.offset, repr((segment.peers[message.peer], *message[2:]))) for message in segment.messages}
    return found | {(offset, repr(record)) for offset, record in [*segment.rejections, *segment.transitions]}


def reread(small: Small, data: bytes) -> Segment:
    small.path.write_bytes(data)
    return read_segment(small.path)


def test_a_segment_as_it_was_written_has_nothing_to_find(small: Small) -> None:
    """No damage, no remark, and a repair of it is the file itself."""
    found = small.examine(small.data)
    assert (found.first_bad, found.lost_records, repaired(found) == small.data) == (None, 0, True)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_costs_exactly_the_record_it_is_in(small: Small, bit: int) -> None:
    """At every byte: it is told where, and the repaired file has all other records at their places and no damage."""
    whole, starts = rows(small.whole), small.starts()
    for at in range(len(small.data)):
        changed = bytearray(small.data)
        changed[at] ^= 1 << bit
        found = small.examine(bytes(changed))
        assert found.first_bad is not None, f"byte {at}"
        hit = max((start for start in starts if start <= at), default=0)
        trailer = len(small.data) - fmt.TRAILER_BYTES
        assert found.first_bad == (trailer if at >= trailer else hit), f"byte {at}"
        lost = {row for row in whole if row[0] == hit}
        assert found.lost_records == len(lost), f"byte {at}"
        again = repaired(found)
        segment = reread(small, again)
        assert (rows(segment), segment.damaged) == (whole - lost, []), f"byte {at}"
        assert small.examine(again).first_bad is None, f"byte {at}"
        if not lost and not 32 <= at < 40:  # opened_at stands nowhere else
            assert again == small.data, f"byte {at}"


def test_without_its_footer_a_segment_is_read_by_the_records_lengths(small: Small) -> None:
    """Trailer and the payload of one record damaged: still one record, as long as its length is right."""
    message = list(small.whole.messages)[1]
    found = small.examine(small.with_flips(message.offset + 30, len(small.data) - 1))
    assert (found.lost_records, found.exact) == (1, True)
    segment = reread(small, repaired(found))
    assert rows(segment) == {row for row in rows(small.whole) if row[0] != message.offset}


def test_without_footer_and_length_the_rest_is_given_up_and_kept(small: Small) -> None:
    """What follows is not counted, and none of its bytes but nine is overwritten."""
    message = list(small.whole.messages)[1]
    data = small.with_flips(message.offset + 5, len(small.data) - 1)
    found = small.examine(data)
    assert (found.exact, found.first_bad) == (False, message.offset)
    again = repaired(found)
    assert data[message.offset + 9 :] in again
    assert rows(reread(small, again)) == {row for row in rows(small.whole) if row[0] < message.offset}


def test_records_inside_a_message_are_never_found(tmp_path: Path) -> None:
    """A device whose message holds a well-formed record of somebody else gets it in by no damage of its own."""
    spool = SpoolOnDisk(tmp_path / "spool")
    spool.message(rows_body(sample(0, s1=1.0)), sender=peer("victim"))
    forged: list[bytes] = []
    fmt.pack_message(forged, 0, RECEIVED_AT, 1, 0, b"forged")
    hostile = b"".join(forged) * 3
    spool.message(pack(["", "", [[0, "sample", {}, {1: hostile}]]]), sender=peer("attacker"))
    spool.message(rows_body(sample(0, s1=2.0)), sender=peer("victim"))
    data = spool.seal().read_bytes()
    start = data.index(hostile)
    for at in range(start - 80, start):
        changed = bytearray(data)
        changed[at] ^= 1
        changed[-1] ^= 1
        found = examine(bytes(changed), [spool.identity], 1, live=False)
        assert [message for message in found.messages if message.raw == b"forged"] == [], f"byte {at}"


def test_a_live_segment_keeps_what_stands_behind_its_damage(small: Small) -> None:
    """The next start would cut there: repaired before it, only the damaged record is gone."""
    footer_at = small.starts()[-1]
    message = list(small.whole.messages)[1]
    live = small.with_flips(message.offset + 30)[:footer_at]
    found = small.examine(live, live=True)
    assert (found.lost_records, found.torn) == (1, 0)
    again = repaired(found)
    assert len(again) == len(live)
    assert small.examine(again, live=True).first_bad is None


def test_a_torn_end_of_a_live_segment_is_no_damage(small: Small) -> None:
    """Cut at every byte of its last record: a write under way, which the next start cuts off."""
    *_, last, footer_at = small.starts()
    for size in range(last + 1, footer_at):
        found = small.examine(small.data[:size], live=True)
        assert (found.first_bad, found.torn, repaired(found)) == (None, size - last, small.data[:size])


@pytest.mark.parametrize("size", [10, 11, 19, 1000, fmt.MAX_RECORD_BYTES, fmt.MAX_RECORD_BYTES + 1, 3_000_005])
def test_lost_records_are_as_long_as_what_they_stand_for(size: int) -> None:
    """So that every record behind them keeps its offset; each is a record that reads well."""
    data = memoryview(fmt.pack_lost(bytes(size)))
    at = 0
    while at < size:
        kind, _, at = fmt.check_record(data, at)
        assert kind == fmt.LOST
    assert at == len(data) == size
