"""Decides how an edge's spool is read: its segments, from schemas/spool.md alone, and the messages in them.

A segment that goes while it is looked for was loaded and deleted; one that is damaged is read up to that place. What a
message says, and whether it is authentic, is `record`'s.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from fleetsim.gate import RunError

_HEADER = struct.Struct("<8s16sQqI")  # magic with seed, spool, segment, opened_at, crc
_MAGIC, _MAGIC_1 = b"FGS2", b"FGSPOOL1"
_RECORD = struct.Struct("<IIB")  # crc, length, kind
_MESSAGE = struct.Struct("<IqBH")  # peer, received_at, outcome, flags
_PEER_KIND, _MESSAGE_KIND = 1, 2
_MAX_RECORD_BYTES = 1024 * 1024
ACCEPTED = 1


class Peer(msgspec.Struct, array_like=True, frozen=True):
    """Who sent, as the edge noted it; what is behind these fields of the record is not needed here."""

    ref: int
    tenant: str
    vehicle_id: str
    device_id: str
    fingerprint: bytes
    key_digest: bytes


class Received(NamedTuple):
    """A message with the device whose credential verified it at the edge. `outcome` is ACCEPTED, or it was held."""

    peer: Peer
    received_at: int
    outcome: int
    raw: bytes


class Damaged(Exception):
    """Behind this place a segment cannot be read."""


_decode_peer = msgspec.msgpack.Decoder(Peer).decode


def segments(spool: Path) -> list[tuple[int, Path]]:
    """(number, path) of the sealed segments that are there, in order. Raises RunError where there is no spool."""
    directory = spool / "segments"
    try:
        return sorted((int(path.stem), path) for path in directory.glob("*.seg") if path.stem.isdecimal())
    except OSError as error:
        raise RunError(f"{directory}: {error.strerror}") from None


def read_segment(path: Path) -> Iterator[Received]:
    """The messages of a sealed segment in the order of their receipt. Raises FileNotFoundError, Damaged."""
    data = path.read_bytes()
    at, seed = _HEADER.size, _seed(data)
    peers: dict[int, Peer] = {}
    view = memoryview(data)
    end_of_records = len(data) - 12  # the trailer
    while at < end_of_records:
        kind, start, end = _record(view, at, seed)
        if kind == _PEER_KIND:
            peer = _peer(view[start:end], at)
            peers[peer.ref] = peer
        elif kind == _MESSAGE_KIND:
            if end - start <= _MESSAGE.size:
                raise Damaged(f"byte {at}: a message is too short")
            ref, received_at, outcome, _ = _MESSAGE.unpack_from(view, start)
            if ref not in peers:
                raise Damaged(f"byte {at}: a message without its peer")
            yield Received(peers[ref], received_at, outcome, data[start + _MESSAGE.size : end])
        at = end


def _seed(data: bytes) -> int:
    """What every checksum begins with: a number of the segment's own since version 2."""
    head = data[: _HEADER.size]
    if len(head) == _HEADER.size and zlib.crc32(head[:-4]) == int.from_bytes(head[-4:], "little"):
        if head.startswith(_MAGIC_1):
            return 0
        if head.startswith(_MAGIC):
            return int.from_bytes(head[4:8], "little")
    raise Damaged("byte 0: not a segment")


def _record(view: memoryview, at: int, seed: int) -> tuple[int, int, int]:
    """(kind, start, end of the payload)"""
    try:
        crc, length, kind = _RECORD.unpack_from(view, at)
    except struct.error:
        raise Damaged(f"byte {at}: a record is cut off") from None
    start = at + _RECORD.size
    end = start + length
    if not 1 <= length <= _MAX_RECORD_BYTES or end > len(view) or zlib.crc32(view[at + 4 : end], seed) != crc:
        raise Damaged(f"byte {at}: a record is damaged")
    return kind, start, end


def _peer(payload: memoryview, at: int) -> Peer:
    try:
        return _decode_peer(payload)
    except msgspec.MsgspecError:
        raise Damaged(f"byte {at}: a peer is not what its kind says") from None
