"""Reads segments: whole ones for load, the rest of one for recovery. Opens files, changes nothing.

A damaged byte costs the record it lies in: the walk goes from record to record, and where one is damaged the footer's
offsets (and its copies of the peer records) lead on. In place of a damaged header stands what the directory says.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from fleetgate.errors import SpoolError
from fleetgate.spool import format as fmt
from fleetgate.spool.identity import read_identity

_decode_peer = msgspec.msgpack.Decoder(fmt.PeerRecord).decode
_decode_rejection = msgspec.msgpack.Decoder(fmt.RejectionRecord).decode
_decode_transition = msgspec.msgpack.Decoder(fmt.TransitionRecord).decode
_decode_footer = msgspec.msgpack.Decoder(fmt.Footer).decode


class Message(NamedTuple):
    """`peer` is a ref of the segment's peers, `outcome` 1 accepted or 2 held, `raw` the envelope as received."""

    offset: int
    peer: int
    received_at: int
    outcome: int
    flags: int
    raw: bytes


class Segment:
    """A decoded segment. `damaged` lists what could not be read; `footer` is None for one that was never sealed.

    `good_bytes` is the length up to which every record but the footer is good (what recovery keeps of a live segment).
    """

    def __init__(self, header: fmt.Header, sha256: bytes, size: int) -> None:
        self.header = header
        self.sha256 = sha256
        self.size = size
        self.peers: dict[int, fmt.PeerRecord] = {}
        self.messages: list[Message] = []
        self.rejections: list[tuple[int, fmt.RejectionRecord]] = []
        self.transitions: list[tuple[int, fmt.TransitionRecord]] = []
        self.offsets: array[int] = array("I")
        self.footer: fmt.Footer | None = None
        self.damaged: list[fmt.DamagedError] = []
        self.good_bytes = fmt.HEADER_BYTES

    @property
    def name(self) -> str:
        return f"{self.header.segment:020d}"


def segment_paths(directory: Path, suffix: str = ".seg") -> list[tuple[int, Path]]:
    """(number, path) of the segments in `directory`, in order."""
    found = [(int(path.stem), path) for path in directory.glob(f"*{suffix}") if path.stem.isdigit()]
    return sorted(found)


def read_segment(path: Path) -> Segment:
    """Everything readable in the segment at `path`. Raises DamagedError when not even the header is good, OSError."""
    data = path.read_bytes()
    view = memoryview(data)
    header, damaged = _header(path, data, view)
    segment = Segment(header, hashlib.sha256(data).digest(), len(data))
    segment.damaged += damaged
    offset = fmt.HEADER_BYTES
    try:
        while offset < len(data) and segment.footer is None:
            offset = _take(segment, view, data, offset)
            if segment.footer is None:
                segment.good_bytes = offset
    except fmt.DamagedError as error:
        segment.damaged.append(error)
        _read_by_footer(segment, view, data, after=error.offset)
    return segment


def _header(path: Path, data: bytes, view: memoryview) -> tuple[fmt.Header, list[fmt.DamagedError]]:
    """The header; of a sealed segment whose header is damaged, the same facts from its name and directory.

    Raises DamagedError.
    """
    try:
        return fmt.unpack_header(data), []
    except fmt.DamagedError as damage:
        identity = read_identity(path.parent.parent) if fmt.footer_offset(view) is not None else None
        if identity is None or not path.stem.isdigit():
            raise
        sealed_at = int(path.stat().st_mtime * 1000)  # a second or less after it was opened
        return fmt.Header(bytes.fromhex(identity.spool), int(path.stem), sealed_at), [damage]


def _take(segment: Segment, view: memoryview, data: bytes, offset: int) -> int:
    """Decodes the record at `offset` into `segment`; returns where the next one starts. Raises DamagedError."""
    kind, start, end = fmt.check_record(view, offset)
    if kind == fmt.MESSAGE:
        if end - start <= fmt.MESSAGE_HEAD_BYTES:
            raise fmt.DamagedError(offset, "a message record is too short")
        peer, received_at, outcome, flags = fmt.MESSAGE_HEAD.unpack_from(view, start)
        raw = data[start + fmt.MESSAGE_HEAD_BYTES : end]
        segment.messages.append(Message(offset, peer, received_at, outcome, flags, raw))
    else:
        try:
            _take_rare(segment, kind, offset, view[start:end])
        except msgspec.MsgspecError:
            raise fmt.DamagedError(offset, "a record's payload is not what its kind says") from None
    if kind != fmt.FOOTER:
        segment.offsets.append(offset)
    return end


def _take_rare(segment: Segment, kind: int, offset: int, payload: memoryview) -> None:
    match kind:
        case fmt.PEER:
            peer = _decode_peer(payload)
            segment.peers[peer.ref] = peer
        case fmt.REJECTION:
            segment.rejections.append((offset, _decode_rejection(payload)))
        case fmt.TRANSITION:
            segment.transitions.append((offset, _decode_transition(payload)))
        case fmt.FOOTER:
            segment.footer = _decode_footer(payload)
        case _:
            raise fmt.DamagedError(offset, f"unknown record kind {kind}")


def _read_by_footer(segment: Segment, view: memoryview, data: bytes, after: int) -> None:
    """Goes on behind the first damaged record by the footer's offsets, where there is a footer."""
    footer_at = fmt.footer_offset(view)
    if footer_at is None:
        return
    try:
        _take(segment, view, data, footer_at)
    except fmt.DamagedError as error:
        segment.damaged.append(error)
    if segment.footer is None:
        return
    for peer in segment.footer.peers:
        segment.peers.setdefault(peer.ref, peer)
    offsets: array[int] = array("I", segment.footer.offsets)
    for offset in offsets:
        if offset > after:
            try:
                _take(segment, view, data, offset)
            except fmt.DamagedError as error:
                segment.damaged.append(error)


def read_segments(directory: Path, after: int) -> Iterator[Segment]:
    """The sealed segments behind number `after`, in order; one is in memory at a time.

    Raises SpoolError for one that cannot be read at all: what it held must not be taken for never received.
    """
    for number, path in segment_paths(directory):
        if number > after:
            try:
                yield read_segment(path)
            except fmt.DamagedError as damage:
                raise SpoolError(
                    f"{path} cannot be read ({damage}): restore it, or move it away; then what it held may come again"
                ) from None
