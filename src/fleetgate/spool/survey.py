"""What `fleetgate spool ls` shows: one row for each segment, and how far load is behind.

Reads the headers and footers of sealed segments and the whole of live ones, so that a backlog of many gigabytes is
listed in seconds. Whether the records between are good is `verify`'s to say.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec
from msgspec import Struct

from fleetgate.errors import SpoolError
from fleetgate.spool import format as fmt
from fleetgate.spool.cursor import Cursor, read_cursor
from fleetgate.spool.files import ParkedFor, SegmentFile, State, parked_for, segment_files
from fleetgate.spool.identity import Identity, read_identity
from fleetgate.spool.places import header_of, misplaced
from fleetgate.spool.reader import read_segment

_decode_footer = msgspec.msgpack.Decoder(fmt.Footer).decode
_decode_rejection = msgspec.msgpack.Decoder(fmt.RejectionRecord).decode
_decode_transition = msgspec.msgpack.Decoder(fmt.TransitionRecord).decode
_decode_alert = msgspec.msgpack.Decoder(fmt.AlertRecord).decode


Loaded = Literal["yes", "no", "in part"]


class SegmentRow(Struct, frozen=True):
    """One segment. Counts are None where its file cannot be read; `lag_ms` is None for what is loaded.

    `loaded` is `in part` for a segment of which load took what was readable and parked the file. `note` says what is
    wrong with it; of a parked one, why load set it aside.
    """

    segment: int
    state: State
    opened_at_ms: int | None
    oldest_at_ms: int | None
    messages: int | None
    rejections: int | None
    transitions: int | None
    peers: int | None
    bytes: int
    loaded: Loaded
    lag_ms: int | None
    note: str


class Summary(Struct, frozen=True):
    """`unloaded` leaves out the parked; `oldest_unloaded_at_ms` is the time of the oldest record among them."""

    segments: int
    bytes: int
    cursor: int
    unloaded: int
    unloaded_bytes: int
    oldest_unloaded_at_ms: int | None
    oldest_unloaded_age_ms: int | None
    parked: int
    trouble: str


class Survey(Struct, frozen=True):
    segments: list[SegmentRow]
    summary: Summary


def survey(directory: Path, now_ms: int) -> Survey:
    """Raises OSError."""
    identity, cursor, trouble = _positions(directory)
    files = segment_files(directory)
    reasons = {file.number: parked_for(file.path) for file in files if file.state == "parked"}
    through = cursor.segment if cursor is not None else 0
    rows = [row for file in files if (row := _row(file, reasons, identity, through, now_ms)) is not None]
    parked = [row for row in rows if row.state == "parked"]
    standing = [row for row in rows if row.state != "parked"]
    waiting = [row for row in standing if row.segment > through]
    oldest = min((row.oldest_at_ms for row in waiting if row.oldest_at_ms is not None), default=None)
    summary = Summary(
        segments=len(standing),
        bytes=sum(row.bytes for row in standing),
        cursor=through,
        unloaded=len(waiting),
        unloaded_bytes=sum(row.bytes for row in waiting),
        oldest_unloaded_at_ms=oldest,
        oldest_unloaded_age_ms=max(0, now_ms - oldest) if oldest is not None else None,
        parked=len(parked),
        trouble=trouble,
    )
    return Survey(rows, summary)


def _positions(directory: Path) -> tuple[Identity | None, Cursor | None, str]:
    """Which spool this is, how far load is in it, and why that is not known."""
    identity: Identity | None = None
    try:
        identity, cursor = read_identity(directory), read_cursor(directory)
    except SpoolError as error:
        return identity, None, str(error)
    if cursor is not None and identity is not None and cursor.spool != identity.spool:
        return identity, None, f"the cursor is of another spool ({cursor.spool})"
    return identity, cursor, ""


class _Glance(Struct):
    opened_at_ms: int | None = None
    oldest_at_ms: int | None = None
    messages: int | None = None
    rejections: int | None = None
    transitions: int | None = None
    peers: int | None = None
    size: int = 0
    note: str = ""


def _row(
    file: SegmentFile, reasons: Mapping[int, ParkedFor], identity: Identity | None, through: int, now_ms: int
) -> SegmentRow | None:
    """`reasons` are those of the parked segments, by number. None for a segment that was deleted meanwhile."""
    try:
        seen = _glance(file)
    except FileNotFoundError:
        return None
    header = header_of(file.path)
    astray = misplaced(file, header, identity) if identity is not None and header is not None else ""
    reason, note = reasons.get(file.number), astray or seen.note
    loaded: Loaded = "yes" if file.number <= through else "no"
    if reason is not None and file.number <= through:
        loaded = "in part" if reason.why in ("damaged", "refused in part") else "no"
    if reason is not None and file.state == "parked":
        code = f" (ClickHouse error {reason.code})" if reason.code is not None and reason.code > 0 else ""
        note = f"{reason.why}{code}: {reason.error}"
    waits = loaded == "no" and (file.state == "parked" or file.number > through)
    since = seen.oldest_at_ms if seen.oldest_at_ms is not None else seen.opened_at_ms
    return SegmentRow(
        segment=file.number,
        state=file.state,
        opened_at_ms=seen.opened_at_ms,
        oldest_at_ms=seen.oldest_at_ms,
        messages=seen.messages,
        rejections=seen.rejections,
        transitions=seen.transitions,
        peers=seen.peers,
        bytes=seen.size,
        loaded=loaded,
        lag_ms=max(0, now_ms - since) if waits and since is not None else None,
        note=note,
    )


def _glance(file: SegmentFile) -> _Glance:
    """Raises FileNotFoundError."""
    path = file.path
    if file.state == "live" and not path.exists():
        path = path.with_suffix(".seg")  # sealed meanwhile
    with path.open("rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        if path.suffix == ".seg":
            try:
                return _by_footer(opened, size)
            except fmt.DamagedError:
                pass
    return _whole(path, size)


def _by_footer(opened: BinaryIO, size: int) -> _Glance:
    """From header, first records and footer. Raises DamagedError when one of them is not good."""
    header = fmt.unpack_header(opened.read(fmt.HEADER_BYTES))
    oldest = _oldest(opened, header)
    opened.seek(max(0, size - fmt.TRAILER_BYTES))
    at = fmt.unpack_trailer(opened.read())
    if not fmt.HEADER_BYTES <= at < size:
        raise fmt.DamagedError(size, "the trailer points to nothing")
    opened.seek(at)
    data = memoryview(opened.read(size - at))
    kind, start, end = fmt.check_record(data, 0, header.seed)
    if kind != fmt.FOOTER:
        raise fmt.DamagedError(at, "not a footer")
    try:
        footer = _decode_footer(data[start:end])
        messages, rejections, transitions = footer.rows
    except (msgspec.MsgspecError, ValueError):
        raise fmt.DamagedError(at, "not a footer") from None
    return _Glance(header.opened_at, oldest, messages, rejections, transitions, len(footer.peers), size)


def _oldest(opened: BinaryIO, header: fmt.Header) -> int | None:
    """The time of the first record that has one; records are appended in the order of receipt."""
    while len(head := opened.read(fmt.RECORD_HEAD_BYTES)) == fmt.RECORD_HEAD_BYTES:
        _, length, kind = fmt.RECORD_HEAD.unpack(head)
        if not 1 <= length <= fmt.MAX_RECORD_BYTES:
            return header.opened_at
        payload = opened.read(length)
        try:
            match kind:
                case fmt.PEER | fmt.LOST:
                    continue
                case fmt.MESSAGE:
                    return int(fmt.MESSAGE_HEAD.unpack_from(payload)[1])
                case fmt.REJECTION:
                    return _decode_rejection(payload).first_at
                case fmt.TRANSITION:
                    return _decode_transition(payload).at
                case fmt.ALERT:
                    return _decode_alert(payload).at
                case _:
                    return None
        except (msgspec.MsgspecError, ValueError, struct.error):
            return header.opened_at
    return None


def _whole(path: Path, size: int) -> _Glance:
    """Of a live segment, or one that does not show by its ends what it holds."""
    try:
        segment = read_segment(path)
    except (fmt.DamagedError, SpoolError) as error:
        return _Glance(size=size, note=f"cannot be read: {error}")
    times = [message.received_at for message in segment.messages]
    times += [record.first_at for _, record in segment.rejections]
    times += [record.at for _, record in segment.transitions]
    times += [record.at for _, record in segment.alerts]
    live = path.suffix == ".open"
    note = f"damaged: {segment.damaged[0]}; `fleetgate verify spool` says more" if segment.damaged and not live else ""
    return _Glance(
        segment.header.opened_at,
        min(times, default=None),
        len(segment.messages),
        len(segment.rejections),
        len(segment.transitions),
        len(segment.peers),
        size,
        note,
    )
