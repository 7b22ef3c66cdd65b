"""What a damaged byte costs, and what a repair makes of the segment: tried at every byte of a small one."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from tests.segments import RECEIVED_AT, SpoolOnDisk, of_version_1, pack, peer, rows_body, sample
from tests.spools import ALERT, rejection

from fleetgate.spool import format as fmt
from fleetgate.spool.examine import Examination, examine, repaired
from fleetgate.spool.reader import Message, Segment, read_segment
from fleetgate.spool.seeds import seed_by_records


class Small:
    """A sealed segment of two peers with a record of each kind; of version 1 if it is old."""

    def __init__(self, directory: Path, *, old: bool) -> None:
        self.spool = SpoolOnDisk(directory / "spool")
        for vehicle in ("one", "two", "one"):
            self.spool.message(rows_body(sample(0, s1=50.0)), sender=peer(vehicle))
        refused = rejection("bad_mac", 2, RECEIVED_AT, RECEIVED_AT, [(1, 2, 3)])
        self.spool.writer.rejection(self.spool.sender(peer("two")), refused)
        self.spool.transition()
        self.spool.writer.alert(ALERT)
        self.spool.message(rows_body(sample(0, s1=51.0)), sender=peer("two"))
        self.path = self.spool.seal()
        if old:
            self.path.write_bytes(of_version_1(self.path.read_bytes()))
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


@pytest.fixture(params=[False, True], ids=["version 2", "version 1"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Small:
    return Small(tmp_path, old=request.param)


def rows(segment: Segment) -> set[tuple[int, str]]:
    """What load takes from a segment, with the place it stands at."""
    found = {(message.offset, repr((segment.peers[message.peer], *message[2:]))) for message in segment.messages}
    return found | {
        (offset, repr(record)) for offset, record in [*segment.rejections, *segment.transitions, *segment.alerts]
    }


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
    fmt.pack_message(forged, 0, RECEIVED_AT, 1, 0, b"forged", seed=0)
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


class Forger:
    """A device that writes records of another vehicle into the bytes of its message, knowing where these will stand,
    with a footer that leads to them and a trailer. What it cannot know is the segment's seed."""

    def __init__(self, directory: Path, seed: int = 0) -> None:
        self.seed = seed
        at = self._written(SpoolOnDisk(directory / "probe"), b"\x55" * 4096)
        self.spool = SpoolOnDisk(directory / "spool")
        forged = self._records(at)
        assert self._written(self.spool, forged.ljust(4096)) == at
        self.start, self.end = at, at + len(forged)

    @staticmethod
    def _written(spool: SpoolOnDisk, hostile: bytes) -> int:
        """Where the bytes stand, between two honest messages."""
        spool.message(rows_body(sample(0, s1=1.0)), sender=peer("honest"))
        spool.message(pack(["", "", [[0, "sample", {}, {1: hostile}]]]), sender=peer("attacker"))
        at = spool.live_bytes().index(hostile)
        spool.message(rows_body(sample(0, s1=2.0)), sender=peer("honest"))
        return at

    def _records(self, at: int) -> bytes:
        victim = msgspec.structs.replace(peer("victim"), ref=7)
        records = [fmt.pack_record(fmt.PEER, victim, self.seed)]
        fmt.pack_message(records, 7, RECEIVED_AT, 1, 0, b"forged", self.seed)
        places = array("I", [fmt.HEADER_BYTES, at, at + len(records[0])])
        size = len(b"".join(records))
        footer = fmt.pack_record(fmt.FOOTER, fmt.Footer(3, places.tobytes(), [victim], [1, 0, 0]), self.seed)
        return b"".join([*records, footer, fmt.pack_trailer(at + size)])


@pytest.mark.parametrize("header", ["whole", "damaged"])
def test_a_device_cannot_write_the_end_of_a_segment_that_lost_it(tmp_path: Path, header: str) -> None:
    """The disk keeps a sealed segment up to the end of what a device forged: nobody takes it, load, edge or repair."""
    forger = Forger(tmp_path)
    path = forger.spool.seal()
    data = bytearray(path.read_bytes()[: forger.end])
    if header == "damaged":
        data[4] ^= 1  # in the seed itself
    path.write_bytes(data)
    found = examine(bytes(data), [forger.spool.identity], 1, live=False)
    assert vehicles(found.segment, found.messages) == ["honest"]
    assert vehicles(read_segment(path)) == ["honest"]
    path.write_bytes(repaired(found))
    assert vehicles(read_segment(path)) == ["honest"]


def vehicles(segment: Segment, messages: Iterable[Message] | None = None) -> list[str]:
    """Whose messages are in it."""
    return [segment.peers[message.peer].vehicle_id for message in messages or segment.messages]


def test_a_damaged_length_does_not_lead_to_a_record_that_a_device_forged(tmp_path: Path) -> None:
    """In a live segment, before a repair: a bit of a length flips, and the length leads into a device's message."""
    forger = Forger(tmp_path)
    data = bytearray(forger.spool.live_bytes())
    first = fmt.HEADER_BYTES
    data[first + 4 : first + 8] = (forger.start - first - fmt.RECORD_HEAD_BYTES).to_bytes(4, "little")
    found = examine(bytes(data), [forger.spool.identity], 1, live=True)
    assert (found.messages, found.torn) == ([], len(data) - first)


def test_the_records_tell_the_seed_of_a_lost_header(small: Small) -> None:
    """By the first two; where a whole sector is gone, by the last one and the footer; never by one alone."""
    seed, second = small.whole.header.seed, small.starts()[1]
    gone = bytes(fmt.HEADER_BYTES)
    assert seed_by_records(memoryview(gone + small.data[len(gone) :])) == seed
    assert seed_by_records(memoryview(bytes(second) + small.data[second:])) == seed
    assert seed_by_records(memoryview(gone + small.data[len(gone) : second])) == 0


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
    data = memoryview(fmt.pack_lost(bytes(size), seed=7))
    at = 0
    while at < size:
        kind, _, at = fmt.check_record(data, at, 7)
        assert kind == fmt.LOST
    assert at == len(data) == size
