"""The records of a segment as a person or a program reads them, for `fleetgate spool cat`.

Decides which fields of a record are shown. What a device wrote goes through `console_output.cell` or JSON, which let no
escape sequence pass; nothing here says whether a message is authentic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from enum import StrEnum
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from fleetgate.catalogue import catalogue
from fleetgate.cli.console_output import print_json, print_records, say
from fleetgate.errors import NotFound, SpoolError
from fleetgate.judge.body import Columns
from fleetgate.judge.envelope import Envelope, open_envelope
from fleetgate.judge.verdict import Flag, Outcome, Reject
from fleetgate.spool.files import SegmentFile
from fleetgate.spool.format import AlertRecord, DamagedError, PeerRecord
from fleetgate.spool.reader import Message, Segment, read_segment


class Kind(StrEnum):
    """The kinds that can be asked for, as schemas/spool.md names them."""

    PEER = "peer"
    MESSAGE = "message"
    REJECTION = "rejection"
    TRANSITION = "transition"
    ALERT = "alert"


class PeerRow(Struct, frozen=True):
    peer: int
    tenant: str
    device_id: str
    vehicle_id: str
    fingerprint: str
    key_digest: str
    address: str
    transport: str
    edge_id: str
    policy_version: str


class MessageRow(Struct, frozen=True, omit_defaults=True):
    """`bytes` is the size of the envelope. Fields of the envelope are None where it does not open."""

    offset: int
    received_at_ms: int
    peer: int
    tenant: str | None
    device_id: str | None
    outcome: str
    flags: str
    bytes: int
    kid: int | None
    epoch: int | None
    seq: int | None
    sent_at_ms: int | None
    enc: int | None
    body_bytes: int | None
    body: Any = None


class RejectionRow(Struct, frozen=True):
    offset: int
    peer: int
    tenant: str | None
    device_id: str | None
    reason: str
    count: int
    from_ms: int
    to_ms: int
    ranges: str
    score: float


class TransitionRow(Struct, frozen=True):
    offset: int
    at_ms: int
    tenant: str
    device_id: str
    before: str
    after: str
    why: str
    score: float
    policy_version: str


class AlertRow(Struct, frozen=True):
    """`device_id` is none: an alert is about no single device."""

    offset: int
    at_ms: int
    key: str
    state: str
    kind: str
    tenant: str
    cohort: str
    detail: dict[str, str | int | float]
    device_id: None = None


def print_segment(
    file: SegmentFile, kinds: frozenset[Kind], device: str | None, limit: int | None, *, bodies: bool, as_json: bool
) -> None:
    """Raises SpoolError for a file of which nothing can be read, NotFound for one that went."""
    try:
        segment = read_segment(file.path)
    except DamagedError as error:
        raise SpoolError(f"{file.path} cannot be read ({error}): see `fleetgate verify spool`") from None
    except FileNotFoundError:
        raise NotFound(f"segment {file.number} went while it was looked at: sealed, or loaded and deleted") from None
    shown = {kind: list(islice(_rows(segment, kind, device, bodies), limit)) for kind in Kind if kind in kinds}
    if as_json:
        print_json({"segment": file.number, "state": file.state, **{f"{kind}s": rows for kind, rows in shown.items()}})
        return
    for kind, rows in shown.items():
        if rows or len(shown) == 1:
            names = [name for name in rows[0].__struct_fields__ if name != "body" or bodies] if rows else []
            print_records(rows, names, empty=f"no {kind} records")
            say("")
    if file.state != "live" and segment.damaged:
        say(f"{len(segment.damaged)} places are damaged, see `fleetgate verify spool`")
    for offset, size in segment.lost:
        say(f"{size} bytes at {offset} were given up by a repair")


def _rows(segment: Segment, kind: Kind, device: str | None, bodies: bool) -> Iterable[Struct]:
    rows: Iterable[Any]
    match kind:
        case Kind.PEER:
            rows = (_peer(peer) for peer in segment.peers.values())
        case Kind.MESSAGE:
            rows = (_message(segment, message, bodies) for message in segment.messages)
        case Kind.REJECTION:
            rows = (_rejection(segment, place) for place in range(len(segment.rejections)))
        case Kind.TRANSITION:
            rows = (_transition(segment, place) for place in range(len(segment.transitions)))
        case Kind.ALERT:
            rows = (_alert(offset, record) for offset, record in segment.alerts)
    return rows if device is None else (row for row in rows if row.device_id == device)


def _peer(peer: PeerRecord) -> PeerRow:
    return PeerRow(
        peer.ref,
        peer.tenant,
        peer.device_id,
        peer.vehicle_id,
        peer.fingerprint.hex(),
        peer.key_digest.hex(),
        peer.address,
        peer.transport,
        peer.edge_id,
        peer.policy_version,
    )


def _message(segment: Segment, message: Message, bodies: bool) -> MessageRow:
    peer = segment.peers.get(message.peer)
    envelope: Envelope | None = None
    with contextlib.suppress(Reject):  # the table says so by what it does not know
        envelope = open_envelope(message.raw, json_allowed=True)
    known = {1: Outcome.ACCEPTED, 2: Outcome.HELD}.get(message.outcome)
    return MessageRow(
        offset=message.offset,
        received_at_ms=message.received_at,
        peer=message.peer,
        tenant=peer.tenant if peer is not None else None,
        device_id=peer.device_id if peer is not None else None,
        outcome=known.name.lower() if known is not None else str(message.outcome),
        flags=" ".join(flag.name.lower() for flag in Flag if message.flags & flag and flag.name is not None),
        bytes=len(message.raw),
        kid=envelope.kid if envelope is not None else None,
        epoch=envelope.epoch if envelope is not None else None,
        seq=envelope.seq if envelope is not None else None,
        sent_at_ms=envelope.sent_at if envelope is not None else None,
        enc=envelope.enc if envelope is not None else None,
        body_bytes=len(envelope.body) if envelope is not None else None,
        body=_body(envelope) if bodies and envelope is not None else None,
    )


def _body(envelope: Envelope) -> Any:
    """The body as plain values; of columns, the numbers in them."""
    try:
        body = catalogue().bodies.open(envelope.enc, envelope.body)
    except Reject as refusal:
        return f"does not open: {refusal.reason}"
    plain = msgspec.to_builtins(body, str_keys=True)
    if isinstance(body, Columns):
        values = {
            number: np.frombuffer(column.data, dtype="<f4" if column.type == 1 else "<f8").tolist()
            for number, column in body.columns.items()
        }
        return [body.software, body.config, body.kind, np.frombuffer(body.at, dtype="<i4").tolist(), values]
    return plain


def _rejection(segment: Segment, place: int) -> RejectionRow:
    offset, record = segment.rejections[place]
    peer = segment.peers.get(record.peer)
    ranges = " ".join(f"{epoch}:{first}-{last}" for epoch, first, last in record.ranges)
    return RejectionRow(
        offset,
        record.peer,
        peer.tenant if peer is not None else None,
        peer.device_id if peer is not None else None,
        record.reason,
        record.count,
        record.first_at,
        record.last_at,
        ranges,
        record.score,
    )


def _transition(segment: Segment, place: int) -> TransitionRow:
    offset, record = segment.transitions[place]
    return TransitionRow(
        offset,
        record.at,
        record.tenant,
        record.device_id,
        record.before,
        record.after,
        record.why,
        record.score,
        record.policy_version,
    )


def _alert(offset: int, record: AlertRecord) -> AlertRow:
    return AlertRow(
        offset, record.at, record.key, record.state, record.kind, record.tenant, record.cohort, record.detail
    )
