"""Reads segments: whole ones for load, the rest of one for recovery. Opens files, changes nothing.

A sealed segment without a flaw is read in columns. Any flaw makes the walk from record to record: a damaged byte then
costs the record it lies in, and the footer's offsets (and its copies of the peer records) lead on. Where the header is
damaged, what the directory says stands in for it.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from array import array
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleetgate.errors import SpoolError
from fleetgate.spool import format as fmt
from fleetgate.spool.identity import read_identity
from fleetgate.spool.seeds import seed_by_records

_decode_peer = msgspec.msgpack.Decoder(fmt.PeerRecord).decode
_decode_rejection = msgspec.msgpack.Decoder(fmt.RejectionRecord).decode
_decode_transition = msgspec.msgpack.Decoder(fmt.TransitionRecord).decode
_decode_alert = msgspec.msgpack.Decoder(fmt.AlertRecord).decode
_decode_footer = msgspec.msgpack.Decoder(fmt.Footer).decode


class Message(NamedTuple):
    """`peer` is a ref of the segment's peers, `outcome` 1 accepted or 2 held, `raw` the envelope as received."""

    offset: int
    peer: int
    received_at: int
    outcome: int
    flags: int
    raw: bytes


class Messages:
    """A segment's messages in order, in columns beside one another; iterating gives each as a `Message`."""

    def __init__(self, offset: NDArray[np.int64], heads: NDArray[Any], raw: list[bytes]) -> None:
        """`heads` has the fields of MESSAGE_HEAD by name; entry by entry they belong to `offset` and `raw`."""
        self.offset = offset
        self.peer: NDArray[np.int64] = heads["peer"].astype(np.int64)
        self.received_at: NDArray[np.int64] = heads["received_at"].astype(np.int64)
        self.outcome: NDArray[np.uint8] = heads["outcome"].copy()
        self.flags: NDArray[np.uint16] = heads["flags"].astype(np.uint16)
        self.raw = raw

    def __len__(self) -> int:
        return len(self.raw)

    def __iter__(self) -> Iterator[Message]:
        columns = (self.offset, self.peer, self.received_at, self.outcome, self.flags)
        return map(Message, *(column.tolist() for column in columns), self.raw)


_HEADS = np.dtype(
    [
        *(("crc", "<u4"), ("length", "<u4"), ("kind", "u1")),
        *(("peer", "<u4"), ("received_at", "<i8"), ("outcome", "u1"), ("flags", "<u2")),
    ]
)
"""RECORD_HEAD and MESSAGE_HEAD of format.py, for numpy."""


class Segment:
    """A decoded segment. `damaged` lists what could not be read; `footer` is None for one that was never sealed.

    `good_bytes` is the length up to which every record but the footer is good (what recovery keeps of a live segment).
    """

    def __init__(self, header: fmt.Header, sha256: bytes, size: int) -> None:
        self.header = header
        self.sha256 = sha256
        self.size = size
        self.peers: dict[int, fmt.PeerRecord] = {}
        self.messages = Messages(np.empty(0, np.int64), np.empty(0, _HEADS), [])
        self.rejections: list[tuple[int, fmt.RejectionRecord]] = []
        self.transitions: list[tuple[int, fmt.TransitionRecord]] = []
        self.alerts: list[tuple[int, fmt.AlertRecord]] = []
        self.lost: list[tuple[int, int]] = []  # (offset, bytes) that `fleetgate spool repair` gave up
        self.offsets: array[int] = array("I")
        self.footer: fmt.Footer | None = None
        self.damaged: list[fmt.DamagedError] = []
        self.good_bytes = fmt.HEADER_BYTES

    @property
    def name(self) -> str:
        return f"{self.header.segment:020d}"


def segment_paths(directory: Path, suffix: str = ".seg") -> list[tuple[int, Path]]:
    """(number, path) of the segments in `directory`, in order."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []  # an error of any other kind must not be taken for no segments
    paths = (directory / name for name in names if name.endswith(suffix))
    return sorted((int(path.stem), path) for path in paths if path.stem.isdigit())


def read_segment(path: Path) -> Segment:
    """Everything readable in the segment at `path`. Raises DamagedError when not even the header is good, OSError.

    A live one is read from record to record only, up to the first that is damaged: what a torn write leaves at its end
    is bytes that a device chose, and could be a footer that leads anywhere.
    """
    data = path.read_bytes()
    view = memoryview(data)
    live = path.suffix == ".open"
    header, damaged = (fmt.unpack_header(data), []) if live else _header(path, data, view)
    sha256 = hashlib.sha256(data).digest()
    segment = Segment(header, sha256, len(data))
    if live:
        _walk(segment, view, data, by_footer=False)
        return segment
    try:
        _read_columns(segment, view, data)
    except _Flawed:
        segment = Segment(header, sha256, len(data))
        _walk(segment, view, data, by_footer=True)
        if segment.footer is None and not segment.damaged and fmt.footer_offset(view) is None:
            segment.damaged.append(fmt.DamagedError(len(data), "it ends without its footer: records may be missing"))
    segment.damaged[:0] = damaged
    return segment


class _Flawed(Exception):
    """Something is not as in a sealed segment without a flaw; what exactly, the walk finds."""


def _read_columns(segment: Segment, view: memoryview, data: bytes) -> None:
    """All records at once, by the footer's offsets: 0.64 us a message of one event instead of 1.45. Raises _Flawed."""
    seed = segment.header.seed
    footer, footer_at = _whole_footer(view, seed)
    offsets = np.frombuffer(footer.offsets, "<u4").astype(np.int64)
    ends = np.append(offsets[1:], footer_at)
    if len(offsets) == 0 or offsets[0] != fmt.HEADER_BYTES or (ends - offsets <= fmt.RECORD_HEAD_BYTES).any():
        raise _Flawed
    # Footer and trailer stand behind the last record, so that there are bytes for a head at each offset.
    at_each_byte = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), _HEADS.itemsize)
    heads = at_each_byte[offsets].view(_HEADS).reshape(-1)
    checked = map(view.__getitem__, map(slice, (offsets + 4).tolist(), ends.tolist()))
    sums = np.fromiter(map(zlib.crc32, checked, repeat(seed)), np.uint32, len(offsets))
    found = heads["kind"] == fmt.MESSAGE
    if (
        (offsets + fmt.RECORD_HEAD_BYTES + heads["length"] != ends).any()
        or (sums != heads["crc"]).any()
        or (heads["length"][found] <= fmt.MESSAGE_HEAD_BYTES).any()
    ):
        raise _Flawed
    try:
        for place in np.flatnonzero(~found).tolist():
            offset = int(offsets[place])
            payload = view[offset + fmt.RECORD_HEAD_BYTES : int(ends[place])]
            _take_rare(segment, int(heads["kind"][place]), offset, payload)
    except (msgspec.MsgspecError, fmt.DamagedError):
        raise _Flawed from None
    starts = offsets[found] + fmt.MESSAGE_OVERHEAD_BYTES
    raw = list(map(data.__getitem__, map(slice, starts.tolist(), ends[found].tolist())))
    segment.messages = Messages(offsets[found], heads[found], raw)
    segment.offsets = array("I", footer.offsets)
    _note_footer(segment, footer)
    segment.good_bytes = footer_at


def _whole_footer(view: memoryview, seed: int) -> tuple[fmt.Footer, int]:
    """The footer and its offset, where it ends the file together with its trailer. Raises _Flawed."""
    footer_at = fmt.footer_offset(view)
    if footer_at is None:
        raise _Flawed
    try:
        kind, start, end = fmt.check_record(view, footer_at, seed)
        if kind != fmt.FOOTER or end + fmt.TRAILER_BYTES != len(view):
            raise _Flawed
        footer = _decode_footer(view[start:end])
    except (fmt.DamagedError, msgspec.MsgspecError):
        raise _Flawed from None
    if len(footer.offsets) % 4:
        raise _Flawed
    return footer, footer_at


def _walk(segment: Segment, view: memoryview, data: bytes, *, by_footer: bool) -> None:
    """From record to record, and behind a damaged one by the footer where that may be believed."""
    messages: list[Message] = []
    offset = fmt.HEADER_BYTES
    try:
        while offset < len(data) and segment.footer is None:
            offset = take_record(segment, messages, view, data, offset)
            if segment.footer is None:
                segment.good_bytes = offset
    except fmt.DamagedError as error:
        segment.damaged.append(error)
        if by_footer:
            _read_by_footer(segment, messages, view, data, after=error.offset)
    heads = [(0, 0, fmt.MESSAGE, m.peer, m.received_at, m.outcome, m.flags) for m in messages]
    offsets = np.array([message.offset for message in messages], dtype=np.int64)
    segment.messages = Messages(offsets, np.array(heads, dtype=_HEADS), [message.raw for message in messages])


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
        spool = fmt.spool_named(data, identity.all())
        return fmt.Header(spool, int(path.stem), sealed_at, seed_by_records(view)), [damage]


def take_record(segment: Segment, messages: list[Message], view: memoryview, data: bytes, offset: int) -> int:
    """Decodes the record at `offset` into `messages` or `segment`; returns where the next one starts.

    Raises DamagedError.
    """
    kind, start, end = fmt.check_record(view, offset, segment.header.seed)
    if kind == fmt.MESSAGE:
        if end - start <= fmt.MESSAGE_HEAD_BYTES:
            raise fmt.DamagedError(offset, "a message record is too short")
        peer, received_at, outcome, flags = fmt.MESSAGE_HEAD.unpack_from(view, start)
        raw = data[start + fmt.MESSAGE_HEAD_BYTES : end]
        messages.append(Message(offset, peer, received_at, outcome, flags, raw))
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
        case fmt.ALERT:
            segment.alerts.append((offset, _decode_alert(payload)))
        case fmt.LOST:
            segment.lost.append((offset, fmt.RECORD_HEAD_BYTES + len(payload)))
        case fmt.FOOTER:
            _note_footer(segment, _decode_footer(payload))
        case _:
            raise fmt.DamagedError(offset, f"unknown record kind {kind}")


def _note_footer(segment: Segment, footer: fmt.Footer) -> None:
    """With its copies of the peer records, for those that are damaged or given up."""
    segment.footer = footer
    for peer in footer.peers:
        segment.peers.setdefault(peer.ref, peer)


def _read_by_footer(segment: Segment, messages: list[Message], view: memoryview, data: bytes, after: int) -> None:
    """Goes on behind the first damaged record by the footer's offsets, where there is a footer."""
    footer_at = fmt.footer_offset(view)
    if footer_at is None:
        return
    try:
        take_record(segment, messages, view, data, footer_at)
    except fmt.DamagedError as error:
        if footer_at != after:  # else the walk has told it, which came that far
            segment.damaged.append(error)
    if segment.footer is None:
        return
    offsets: array[int] = array("I", segment.footer.offsets)
    for offset in offsets:
        if offset > after:
            try:
                take_record(segment, messages, view, data, offset)
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
                raise SpoolError(f"{path} cannot be read ({damage}): restore it, or `fleetgate spool repair`") from None
            except OSError as error:
                raise SpoolError(f"{path} cannot be read ({error.strerror}): mend the disk, or restore it") from None
