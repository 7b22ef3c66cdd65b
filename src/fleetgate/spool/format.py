"""The bytes of a segment, as schemas/spool.md says them. Pure: packs and unpacks, opens no file.

Writer and reader use these and nothing else, so the format stands in one place.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from struct import Struct as Layout
from typing import Final, Literal

import msgspec
from msgspec import Struct

MAGIC: Final = b"FGS2"
MAGIC_1: Final = b"FGSPOOL1"
TRAILER_MAGIC: Final = b"FGSE"
PEER, MESSAGE, REJECTION, TRANSITION, FOOTER, LOST, ALERT = 1, 2, 3, 4, 5, 6, 7
MAX_RECORD_BYTES: Final = 1024 * 1024

_HEADER = Layout("<8s16sQqI")
_MAGIC_SEED = Layout("<4sI")
HEADER_BYTES: Final = _HEADER.size
_TRAILER = Layout("<Q4s")
TRAILER_BYTES: Final = _TRAILER.size
RECORD_HEAD: Final = Layout("<IIB")  # crc, length, kind
RECORD_HEAD_BYTES: Final = RECORD_HEAD.size
_CRC = Layout("<I").pack
_LENGTH_KIND = Layout("<IB").pack
MESSAGE_HEAD: Final = Layout("<IqBH")  # peer, received_at, outcome, flags
_MESSAGE = Layout("<IBIqBH").pack  # length, kind, then MESSAGE_HEAD
MESSAGE_HEAD_BYTES: Final = MESSAGE_HEAD.size
MESSAGE_OVERHEAD_BYTES: Final = RECORD_HEAD_BYTES + MESSAGE_HEAD_BYTES
MAX_RAW_BYTES: Final = MAX_RECORD_BYTES - MESSAGE_HEAD_BYTES

_crc32 = zlib.crc32


class DamagedError(Exception):
    """Bytes that are not what the format says; `offset` is where they stop being good."""

    def __init__(self, offset: int, what: str) -> None:
        super().__init__(f"byte {offset}: {what}")
        self.offset = offset


class Header(Struct, frozen=True):
    """`spool` is the 16 bytes of the spool's identity, `opened_at` Unix ms.

    `seed` is a random number that every checksum of the segment's records begins with. A CRC keeps nobody from making a
    record, and devices choose the bytes of their messages: without the seed they could put in whole records, for a disk
    that loses bytes around them. 0 in a segment of version 1, where there was none.
    """

    spool: bytes
    segment: int
    opened_at: int
    seed: int = 0


class PeerRecord(Struct, array_like=True, frozen=True):
    """Who sent, over what, judged by which policy. Digests are 32 bytes."""

    ref: int
    tenant: str
    vehicle_id: str
    device_id: str
    fingerprint: bytes
    key_digest: bytes
    address: str
    transport: str
    edge_id: str
    policy_version: str


class RejectionRecord(Struct, array_like=True, frozen=True):
    """Refusals of one peer and reason within one commit; `ranges` are (epoch, first, last) that had passed step 3.

    `score` is what their signal makes of the device's score after them, as of `scored_at` (Unix ms). `disorder` is
    their class (`accept.disorder`), empty where they have none, and in records of a former fleetgate.
    """

    peer: int
    reason: str
    count: int
    first_at: int
    last_at: int
    ranges: list[tuple[int, int, int]]
    score: float
    scored_at: int
    disorder: str = ""


class TransitionRecord(Struct, array_like=True, frozen=True):
    """A device's state changed at the edge, at `at` (Unix ms), because of `why`. The message that led to it was
    received at `received_at`, earlier than `at` where a person decided by a clock that is ahead; 0 in segments of a
    former fleetgate."""

    tenant: str
    device_id: str
    before: str
    after: str
    at: int
    why: str
    score: float
    policy_version: str
    received_at: int = 0


class AlertRecord(Struct, array_like=True, frozen=True):
    """The edge opened or closed an alert at `at` (Unix ms). Of one `key` at most one is open; `cohort` says whose
    devices in words, empty: all of the tenant; `detail` holds plain numbers and words."""

    key: str
    state: Literal["open", "closed"]
    at: int
    kind: str
    tenant: str
    cohort: str
    detail: dict[str, str | int | float]


class Footer(Struct, array_like=True, frozen=True):
    """`offsets` are packed little-endian u32; `rows` is [messages, rejections, transitions]."""

    records: int
    offsets: bytes
    peers: list[PeerRecord]
    rows: list[int]


_encode = msgspec.msgpack.Encoder().encode


def pack_header(header: Header) -> bytes:
    magic = _MAGIC_SEED.pack(MAGIC, header.seed) if header.seed else MAGIC_1
    head = _HEADER.pack(magic, header.spool, header.segment, header.opened_at, 0)[:-4]
    return head + _CRC(_crc32(head))


def unpack_header(data: bytes) -> Header:
    """Raises DamagedError."""
    if len(data) < HEADER_BYTES:
        raise DamagedError(len(data), "the header is cut off")
    magic, spool, segment, opened_at, crc = _HEADER.unpack_from(data)
    name, seed = _MAGIC_SEED.unpack(magic) if magic != MAGIC_1 else (MAGIC, 0)
    if name != MAGIC or crc != _crc32(data[: HEADER_BYTES - 4]):
        raise DamagedError(0, "not a segment header")
    return Header(spool, segment, opened_at, seed)


def pack_record(kind: int, record: Struct, seed: int) -> bytes:
    """A peer, rejection, transition, alert or footer record."""
    payload = _encode(record)
    body = _LENGTH_KIND(len(payload), kind) + payload
    return _CRC(_crc32(body, seed)) + body


def pack_lost(data: bytes, seed: int) -> bytes:
    """`lost` records in the place of the damaged bytes `data`, as long as these; they keep all but 9 bytes of each MiB.

    At least 10 bytes, as much as the smallest record: so whatever stands behind them keeps its offset.
    """
    parts = []
    while data:
        size = min(len(data), MAX_RECORD_BYTES)
        if 0 < len(data) - size <= RECORD_HEAD_BYTES:
            size -= RECORD_HEAD_BYTES + 1  # leaves enough for one more record
        body = _LENGTH_KIND(size - RECORD_HEAD_BYTES, LOST) + data[RECORD_HEAD_BYTES:size]
        parts.append(_CRC(_crc32(body, seed)) + body)
        data = data[size:]
    return b"".join(parts)


def pack_message(
    parts: list[bytes], peer: int, received_at: int, outcome: int, flags: int, raw: bytes, seed: int
) -> int:
    """Appends a message record to `parts` without copying `raw`; returns its length in bytes.

    Raises ValueError for more than a record holds: written, it would hide every record behind it.
    """
    size = len(raw)
    if size > MAX_RAW_BYTES:
        raise ValueError(f"a message of {size} bytes does not fit a record")
    head = _MESSAGE(MESSAGE_HEAD_BYTES + size, MESSAGE, peer, received_at, outcome, flags)
    parts += (_CRC(_crc32(raw, _crc32(head, seed))), head, raw)  # raw is copied once, when the batch is joined
    return MESSAGE_OVERHEAD_BYTES + size


def check_record(data: memoryview, offset: int, seed: int) -> tuple[int, int, int]:
    """(kind, start, end of the payload) of the record at `offset`. Raises DamagedError."""
    crc, kind, start, end = unchecked_record(data, offset)
    if _crc32(data[offset + 4 : end], seed) != crc:
        raise DamagedError(offset, "a record's checksum is wrong")
    return kind, start, end


def unchecked_record(data: memoryview, offset: int) -> tuple[int, int, int, int]:
    """(checksum, kind, start, end of the payload) of what stands at `offset`. Raises DamagedError."""
    try:
        crc, length, kind = RECORD_HEAD.unpack_from(data, offset)
    except struct.error:
        raise DamagedError(offset, "a record head is cut off") from None
    start = offset + RECORD_HEAD_BYTES
    end = start + length
    if not 1 <= length <= MAX_RECORD_BYTES or end > len(data):
        raise DamagedError(offset, "a record's length is impossible")
    return crc, kind, start, end


def spool_named(data: bytes, spools: Sequence[bytes]) -> bytes:
    """The spool of a segment whose header is damaged: the one of `spools` that it still names, or else the first."""
    return next((spool for spool in spools if data[8:24] == spool), spools[0])


def pack_trailer(footer_offset: int) -> bytes:
    return _TRAILER.pack(footer_offset, TRAILER_MAGIC)


def unpack_trailer(data: bytes) -> int:
    """Where the footer starts, by the last 12 bytes of a segment. Raises DamagedError."""
    if len(data) != TRAILER_BYTES or data[8:] != TRAILER_MAGIC:
        raise DamagedError(0, "not a trailer")
    return int(_TRAILER.unpack(data)[0])


def footer_offset(data: memoryview) -> int | None:
    """Where the trailer says the footer starts; None without a readable trailer."""
    if len(data) < HEADER_BYTES + TRAILER_BYTES:
        return None
    offset, magic = _TRAILER.unpack_from(data, len(data) - TRAILER_BYTES)
    return int(offset) if magic == TRAILER_MAGIC and offset < len(data) else None
