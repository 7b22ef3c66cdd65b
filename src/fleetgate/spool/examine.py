"""Looks at the bytes of one segment as a sceptic: what is good, where it stops being good, what that costs.

Decides what a damaged byte costs, for `fleetgate verify spool`, and what can be kept, for `fleetgate spool repair`.
Opens no file. Load and recovery read with `reader`, which is quicker and says less.

Where there is no good footer, a damaged record is passed over by its own length, and only when a good record follows
there. Bytes are never searched for anything that looks like a record: devices choose the bytes of their messages, and
one could be found inside.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from array import array
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from fleetgate.judge.envelope import open_envelope
from fleetgate.judge.verdict import Reject
from fleetgate.spool import format as fmt
from fleetgate.spool.reader import Message, Segment, take_record
from fleetgate.spool.seeds import seed_by_records

_MISSING_END = bytes(fmt.RECORD_HEAD_BYTES) + b"the end was missing"

BELIEVABLE_MS = 30 * 24 * 3600 * 1000
"""From the oldest message, the `opened_at` of a damaged header; one that is further off was hit itself."""


class Damage(Struct, frozen=True, omit_defaults=True):
    """Bytes that are no record. `records` is what they cost: 0 for a peer record, which the footer repeats (`restored`
    is that record again), None where the bytes do not tell."""

    offset: int
    length: int
    what: str
    records: int | None
    restored: bytes = b""


class Remark(Struct, frozen=True):
    """Something wrong at a place that costs no record, or makes records useless that are good themselves."""

    offset: int
    what: str


class Examination:
    """`segment` and `messages` hold every good record, `good` where each stands (offset, end); `torn` are bytes at the
    end of a live segment that no good record follows: a write under way, or one that a crash tore."""

    def __init__(self, data: bytes, header: fmt.Header, *, live: bool) -> None:
        self.data = data
        self.live = live
        self.segment = Segment(header, hashlib.sha256(data).digest(), len(data))
        self.messages: list[Message] = []
        self.good: list[tuple[int, int]] = []
        self.damage: list[Damage] = []
        self.remarks: list[Remark] = []
        self.torn = 0
        self.header_damaged = False

    def remark(self, offset: int, what: str) -> None:
        self.remarks.append(Remark(offset, f"byte {offset}: {what}"))

    @property
    def starts(self) -> list[int]:
        """Where records start, good or not."""
        return sorted([start for start, _ in self.good] + [damage.offset for damage in self.damage])

    @property
    def first_bad(self) -> int | None:
        """The byte where it stops being good; None for a segment that is as it was written."""
        places = [damage.offset for damage in self.damage] + [remark.offset for remark in self.remarks]
        return min(places, default=None)

    @property
    def lost_records(self) -> int:
        """How many are gone; where the bytes do not tell, one for each such place."""
        return sum(1 if found.records is None else found.records for found in self.damage)

    @property
    def exact(self) -> bool:
        """Whether `lost_records` is their number and not the least it can be."""
        return all(found.records is not None for found in self.damage)


def examine(data: bytes, spools: Sequence[bytes], number: int, *, live: bool) -> Examination:
    """`spools` (the identity of the spool, then its former ones) and `number` stand in for a damaged header."""
    view = memoryview(data)
    header, remarks = _header(data, spools, number)
    found = Examination(data, header, live=live)
    found.header_damaged = bool(remarks)
    found.remarks += remarks
    footer_at = None if live else fmt.footer_offset(view)
    footer = _footer(found, view, footer_at)
    if footer_at is not None and footer is not None and _covers(footer, footer_at):
        _by_offsets(found, view, footer, footer_at)
    else:
        _by_lengths(found, view, footer_at)
        found.segment.footer = found.segment.footer or footer
    if found.segment.footer is not None:
        _restore_peers(found, found.segment.footer)
    if not live:
        if found.segment.footer is None and footer_at is None and found.exact:
            what = "it ends without its footer" if found.good or found.damage else "nothing is left of it"
            found.damage.append(Damage(len(data), 0, f"byte {len(data)}: {what}", None))
        _compare_footer(found, footer_at, pointed_to=footer is not None)
    _look_at_messages(found)
    return found


def _header(data: bytes, spools: Sequence[bytes], number: int) -> tuple[fmt.Header, list[Remark]]:
    try:
        header = fmt.unpack_header(data)
    except fmt.DamagedError as error:
        # Where identity, number or checksum were hit, `opened_at` still is what it was.
        opened_at = struct.unpack_from("<q", data, 32)[0] if len(data) >= fmt.HEADER_BYTES else 0
        header = fmt.Header(fmt.spool_named(data, spools), number, opened_at, seed_by_records(memoryview(data)))
        return header, [Remark(0, f"{error}: its name and directory stand in for it")]
    return header, []


def _footer(found: Examination, view: memoryview, footer_at: int | None) -> fmt.Footer | None:
    """The footer that the trailer points to, if it is good."""
    if footer_at is None:
        return None
    aside = Segment(found.segment.header, b"", 0)
    try:
        take_record(aside, [], view, found.data, footer_at)
    except fmt.DamagedError:
        return None
    return aside.footer


def _covers(footer: fmt.Footer, footer_at: int) -> bool:
    """Whether the offsets can be those of all records between header and footer."""
    if len(footer.offsets) != 4 * footer.records:
        return False
    places = [*array("I", footer.offsets), footer_at]
    return places[0] == fmt.HEADER_BYTES and all(a < b for a, b in itertools.pairwise(places))


def _by_offsets(found: Examination, view: memoryview, footer: fmt.Footer, footer_at: int) -> None:
    places = [*array("I", footer.offsets), footer_at]
    for start, end in itertools.pairwise(places):
        try:
            if fmt.check_record(view, start, found.segment.header.seed)[2] != end:
                raise fmt.DamagedError(start, f"the footer says that this record ends at {end}")
            take_record(found.segment, found.messages, view, found.data, start)
        except fmt.DamagedError as error:
            found.damage.append(Damage(start, end - start, str(error), 1))
        else:
            found.good.append((start, end))
    found.segment.footer = footer


def _restore_peers(found: Examination, footer: fmt.Footer) -> None:
    """A damaged record that is as long as the peer record missing next is that record: nothing is lost."""
    good = {found.data[start:end] for start, end in found.good if found.data[start + 8] == fmt.PEER}
    seed = found.segment.header.seed
    records = (fmt.pack_record(fmt.PEER, peer, seed) for peer in footer.peers)
    missing = [record for record in records if record not in good]
    for place, damage in enumerate(found.damage):
        if missing and len(missing[0]) == damage.length:
            found.damage[place] = msgspec.structs.replace(damage, records=0, restored=missing.pop(0))
    for peer in footer.peers:
        found.segment.peers.setdefault(peer.ref, peer)


def _by_lengths(found: Examination, view: memoryview, footer_at: int | None) -> None:
    """`footer_at` is where a footer should be that is not good: there, or the trailer is what was hit."""
    segment, data = found.segment, found.data
    offset, end = fmt.HEADER_BYTES, len(data)
    while offset < end and offset != footer_at and segment.footer is None:
        try:
            after = take_record(segment, found.messages, view, data, offset)
        except fmt.DamagedError as error:
            following = _by_own_length(segment, view, data, offset, footer_at)
            if following is not None:
                found.damage.append(Damage(offset, following - offset, str(error), 1))
                offset = following
                continue
            if found.live:
                found.torn = end - offset
            else:
                found.damage.append(Damage(offset, end - offset, str(error), None))
            return
        if segment.footer is None:
            found.good.append((offset, after))
        offset = after


def _by_own_length(segment: Segment, view: memoryview, data: bytes, offset: int, footer_at: int | None) -> int | None:
    """Where the record behind the damaged one at `offset` starts, when its length leads to a good one or to the footer.

    The end of the file proves nothing.
    """
    if offset + fmt.RECORD_HEAD_BYTES > len(data):
        return None
    _, length, _ = fmt.RECORD_HEAD.unpack_from(data, offset)
    following = int(offset + fmt.RECORD_HEAD_BYTES + length)
    if not 1 <= length <= fmt.MAX_RECORD_BYTES or following >= len(data):
        return None
    if following == footer_at:
        return following
    try:
        take_record(Segment(segment.header, b"", 0), [], view, data, following)
    except fmt.DamagedError:
        return None
    return following


def _compare_footer(found: Examination, footer_at: int | None, *, pointed_to: bool) -> None:
    segment, footer = found.segment, found.segment.footer
    trailer_at = max(0, len(found.data) - fmt.TRAILER_BYTES)
    if footer_at is None or (footer is not None and not pointed_to):
        found.remark(trailer_at, "the trailer is damaged or missing")
    elif not pointed_to:
        found.remark(footer_at, "the footer is damaged")
    if footer is None:
        return
    at = footer_at if footer_at is not None and pointed_to else trailer_at
    records = len(found.good) + len(found.damage)
    if footer.records != records or len(footer.offsets) != 4 * records:
        found.remark(at, f"the footer counts {footer.records} records, there are {records}")
    elif list(array("I", footer.offsets)) != found.starts:
        found.remark(at, "the footer's offsets are not those of the records")
    rows = [len(found.messages), len(segment.rejections), len(segment.transitions)]
    if not found.damage and footer.rows != rows:
        found.remark(at, f"the footer counts {footer.rows} messages, rejections and transitions, not {rows}")
    if {peer.ref: peer for peer in footer.peers} != segment.peers:
        found.remark(at, "the footer's peers are not those of the records")


def _look_at_messages(found: Examination) -> None:
    """What load could not make rows of, although each checksum is right."""
    for message in found.messages:
        if message.peer not in found.segment.peers:
            found.remark(message.offset, "a message whose peer record is lost")
            continue
        try:
            open_envelope(message.raw, json_allowed=True)
        except Reject as refusal:
            found.remark(message.offset, f"a message that is no envelope ({refusal.reason})")


def repaired(found: Examination) -> bytes:
    """The segment again, with every good record at its offset and `lost` records in the place of damaged ones.

    Where nothing but header, peer records, footer or trailer was hit, these are the bytes that were once written.
    """
    header, data = found.segment.header, found.data
    if found.header_damaged:
        times = [message.received_at for message in found.messages] or [header.opened_at]
        if abs(min(times) - header.opened_at) > BELIEVABLE_MS:
            header = msgspec.structs.replace(header, opened_at=min(times))
    pieces = {start: data[start:end] for start, end in found.good}
    for damage in found.damage:
        pieces[damage.offset] = damage.restored or _give_up(
            data[damage.offset : damage.offset + damage.length], header.seed
        )
    body = b"".join([fmt.pack_header(header), *(pieces[start] for start in sorted(pieces))])
    if found.live:
        return body + data[len(data) - found.torn :] if found.torn else body
    segment = found.segment
    rows = [len(found.messages), len(segment.rejections), len(segment.transitions)]
    return _sealed(body, [segment.peers[ref] for ref in sorted(segment.peers)], rows, header.seed)


def empty_segment(header: fmt.Header) -> bytes:
    """A sealed segment that stands for a missing one: nothing but a `lost` record."""
    lost = fmt.pack_lost(bytes(9) + b"this segment was missing", header.seed)
    return _sealed(fmt.pack_header(header) + lost, [], [0, 0, 0], header.seed)


def _sealed(body: bytes, peers: list[fmt.PeerRecord], rows: list[int], seed: int) -> bytes:
    offsets: array[int] = array("I")
    at = fmt.HEADER_BYTES
    while at < len(body):
        offsets.append(at)
        at = fmt.check_record(memoryview(body), at, seed)[2]
    footer = fmt.pack_record(fmt.FOOTER, fmt.Footer(len(offsets), offsets.tobytes(), peers, rows), seed)
    return body + footer + fmt.pack_trailer(len(body))


def _give_up(damaged: bytes, seed: int) -> bytes:
    """Fewer bytes than a record needs can only stand at the end, where nobody knows how much is missing behind them."""
    return fmt.pack_lost(damaged if len(damaged) > fmt.RECORD_HEAD_BYTES else _MISSING_END, seed)
