"""Writing and reading segments: what comes back, what damage costs, what one record looks like."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from tests.spools import ALERT, TRANSITION, OpenSpool, SetClock, rejection, sender
from tests.units import NOW

from fleetgate.spool import format as fmt
from fleetgate.spool.reader import Segment, read_segment


def test_what_was_appended_comes_back(spool: OpenSpool, clock: SetClock) -> None:
    """Every kind of record, with its peer, in its order, under the segment's number and digest."""
    first, second = sender(1), sender(2)
    spool.writer.message(first, NOW, 1, 3, b"one")
    spool.writer.message(second, NOW + 1, 2, 0, b"two")
    spool.writer.rejection(first, rejection("bad_mac", 4, NOW, NOW + 5, [(1, 2, 9)]))
    spool.writer.transition(TRANSITION)
    spool.writer.alert(ALERT)
    number = spool.writer.seal()
    (segment,) = spool.segments()
    assert [message[1:] for message in segment.messages] == [(0, NOW, 1, 3, b"one"), (1, NOW + 1, 2, 0, b"two")]
    assert [record for _, record in segment.rejections] == [
        fmt.RejectionRecord(0, "bad_mac", 4, NOW, NOW + 5, [(1, 2, 9)], 40.0, NOW + 5)
    ]
    assert [record for _, record in segment.transitions] == [TRANSITION]
    assert [record for _, record in segment.alerts] == [ALERT]
    assert segment.peers == {
        ref: msgspec.structs.replace(who.facts, ref=ref) for ref, who in enumerate((first, second))
    }
    assert (segment.header.segment, segment.header.opened_at, segment.damaged) == (number, clock.ms, [])


def test_no_message_is_written_that_a_reader_would_take_for_damage(spool: OpenSpool) -> None:
    """The largest one comes back; a larger one is an error of the caller, with nothing of it in the segment."""
    with pytest.raises(ValueError, match="does not fit a record"):
        spool.writer.message(sender(), NOW, 1, 0, bytes(fmt.MAX_RAW_BYTES + 1))
    spool.writer.message(sender(), NOW, 1, 0, bytes(fmt.MAX_RAW_BYTES))
    spool.writer.message(sender(), NOW, 1, 0, b"behind it")
    spool.writer.seal()
    (segment,) = spool.segments()
    assert len(set(segment.offsets)) == len(segment.offsets)
    assert ([len(message.raw) for message in segment.messages], segment.damaged) == ([fmt.MAX_RAW_BYTES, 9], [])


def test_the_bytes_are_those_of_the_documented_format(spool: OpenSpool) -> None:
    """Header, records, footer and trailer are read here with `struct` and `zlib` alone, by the text of spool.md."""
    spool.writer.message(sender(), NOW, 2, 5, b"raw bytes")
    spool.writer.seal()
    data = spool.paths()[0].read_bytes()
    magic, seed, identity, number, opened_at, crc = struct.unpack_from("<4sI16sQqI", data)
    assert (magic, identity.hex(), number, opened_at) == (b"FGS2", spool.home.identity.spool, 1, NOW)
    assert crc == zlib.crc32(data[:40])
    records, at = [], 44
    while at < len(data) - 12:
        crc, length, kind = struct.unpack_from("<IIB", data, at)
        assert crc == zlib.crc32(data[at + 4 : at + 9 + length], seed)
        records.append((at, kind, data[at + 9 : at + 9 + length]))
        at += 9 + length
    assert [kind for _, kind, _ in records] == [1, 2, 5]
    assert records[1][2] == struct.pack("<IqBH", 0, NOW, 2, 5) + b"raw bytes"
    count, offsets, peers, rows = msgspec.msgpack.decode(records[2][2])
    assert (count, list(struct.unpack("<2I", offsets)), rows) == (2, [records[0][0], records[1][0]], [1, 0, 0])
    assert [msgspec.msgpack.encode(peer) for peer in peers] == [records[0][2]]
    assert struct.unpack_from("<Q4s", data, at) == (records[2][0], b"FGSE")


def test_a_peer_stands_once_in_each_segment_that_names_it(spool: OpenSpool) -> None:
    """However many messages it sends, and again in the next segment, numbered from 0 there."""
    one, two = sender(1), sender(2)
    for _ in range(3):
        spool.write(1, by=one)
        spool.write(1, by=two)
        spool.writer.commit()
    spool.writer.seal()
    spool.write(1, by=two)
    spool.writer.seal()
    found = [[(ref, peer.device_id) for ref, peer in segment.peers.items()] for segment in spool.segments()]
    assert found == [[(0, "tcu-0001"), (1, "tcu-0002")], [(0, "tcu-0002")]]


def test_many_senders_share_one_commit(spool: OpenSpool) -> None:
    """A thousand connections append between two commits, and each message keeps its own peer."""
    senders = [sender(number) for number in range(1_000)]
    for number, who in enumerate(senders):
        spool.writer.message(who, NOW, 1, 0, str(number).encode())
    spool.writer.commit()
    spool.writer.seal()
    (segment,) = spool.segments()
    assert all(segment.peers[m.peer].device_id == f"tcu-{int(m.raw):04d}" for m in segment.messages)


def test_the_digest_is_that_of_the_file(spool: OpenSpool) -> None:
    """Cursor and deduplication name a segment by the SHA-256 of its bytes."""
    spool.write(2)
    spool.writer.seal()
    assert spool.segments()[0].sha256 == hashlib.sha256(spool.paths()[0].read_bytes()).digest()


def test_a_footer_of_many_thousand_peers_is_read_back(spool: OpenSpool) -> None:
    """20,000 connections within one second are not too many for what a record may hold."""
    for number in range(20_000):
        spool.writer.message(sender(number), NOW, 1, 0, b"x")
    spool.writer.seal()
    segments = spool.segments()
    assert all(segment.footer is not None and not segment.damaged for segment in segments)
    assert sum(len(segment.messages) for segment in segments) == 20_000


class Damage:
    """A sealed segment with three messages, a rejection and a transition, and what one damaged byte costs."""

    def __init__(self, directory: Path) -> None:
        spool = OpenSpool(directory / "spool", SetClock())
        first, second = sender(1), sender(2)
        spool.writer.message(first, NOW, 1, 0, b"one")
        spool.writer.message(second, NOW, 1, 0, b"two")
        spool.writer.rejection(first, rejection("bad_mac", 1, NOW, NOW, []))
        spool.writer.transition(TRANSITION)
        spool.writer.message(first, NOW, 1, 0, b"three")
        spool.writer.seal()
        spool.close()
        self.path = spool.paths()[0]
        self.data = self.path.read_bytes()
        self.whole = read_segment(self.path)

    def with_flip(self, at: int, bit: int) -> Segment:
        changed = bytearray(self.data)
        changed[at] ^= 1 << bit
        self.path.write_bytes(changed)
        return read_segment(self.path)


def rows(segment: Segment) -> list[object]:
    """What the loader takes from a segment: rows with the peer they name."""
    found: list[object] = [(segment.peers.get(m.peer), *m[2:]) for m in segment.messages]
    found += [record for _, record in segment.rejections]
    return found + [record for _, record in segment.transitions]


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_anywhere_costs_at_most_one_record(tmp_path: Path, bit: int) -> None:
    """At every position of a sealed segment, and it is told; a peer record costs nothing, its copy is in the footer."""
    damage = Damage(tmp_path)
    whole = rows(damage.whole)
    for at in range(len(damage.data)):
        segment = damage.with_flip(at, bit)
        left = rows(segment)
        assert len(left) >= len(whole) - 1, f"byte {at}"
        assert all(row in whole for row in left), f"byte {at}"
        assert len(segment.damaged) <= 1, f"byte {at} is told twice"
        assert segment.damaged or at >= len(damage.data) - fmt.TRAILER_BYTES, f"byte {at} is not noticed"
        assert (segment.header.spool, segment.header.segment) == (
            damage.whole.header.spool,
            damage.whole.header.segment,
        ), f"byte {at}"


@pytest.mark.parametrize("data", [b"", b"FGSPOOL1", bytes(44), b"FGSPOOL1" + bytes(60)])
def test_what_has_neither_header_nor_footer_is_no_segment(tmp_path: Path, data: bytes) -> None:
    """A file that cannot be told to be a segment is refused as a whole."""
    path = tmp_path / f"{1:020d}.seg"
    path.write_bytes(data)
    with pytest.raises(fmt.DamagedError):
        read_segment(path)
