"""One message, from its signed bytes to the signed head of its segment, in these steps:

1. bytes       raw_messages has the message, once
2. signature   the MAC holds, under the root key of its key id, for this tenant, device and public key
3. rows        events (or held_events) has exactly the rows that these bytes mean, field by field
4. certificate the fingerprint on the rows is that of a certificate for this public key, by the control records
5. segment     all rows of its segment are those that load wrote, by the segment's hashes
6. head        the chain leads from the segment's row to a head that the audit key signed

Decides what each step proves and says it in a sentence; a step that fails does not end the others. What 2 and 3 show
holds against anybody without the keyring. What the edge noted beside the message (vehicle, times of receipt, flags,
certificate) is not under the device's signature: 5 and 6 show that it is as load wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct, field

from fleetgate.catalogue import Catalogue
from fleetgate.control.heads import NO_LINK, SignedHead, next_link
from fleetgate.errors import CheckFailed, FleetgateError, NotFound
from fleetgate.judge.envelope import Envelope, open_envelope
from fleetgate.judge.keys import MacKeys
from fleetgate.judge.mac import check_mac
from fleetgate.judge.verdict import Reject
from fleetgate.load.chain import ChainRow, chain_rows
from fleetgate.load.clickhouse import ClickHouse
from fleetgate.proof.compare import compare_rows
from fleetgate.proof.findings import Report
from fleetgate.proof.heads import sort_out
from fleetgate.proof.rows import Expected, Keeping, check_rows
from fleetgate.proof.stored import Name, Raw, Step, parameters_of, raw_messages


class Means(NamedTuple):
    """What a proof stands on. `roots` has retired root keys too; `certificates` gives the (key digest,
    fingerprint) that the control records have of a device, or raises what came between."""

    roots: Mapping[int, bytes]
    public_key: Ed25519PublicKey
    heads: Iterable[SignedHead]
    certificates: Callable[[str, str], list[tuple[bytes, bytes]]]
    catalogue: Catalogue
    keeping: Keeping


class Proof(Struct):
    """Where the message came through, and what holds. Times in Unix ms."""

    tenant: str
    device_id: str
    vehicle_id: str
    epoch: int
    seq: int
    outcome: str
    sent_at_ms: int
    received_at_ms: int
    events: int
    envelope_bytes: int
    key_id: int
    key_digest: str
    certificate_fingerprint: str
    transport: str
    address: str
    edge_id: str
    spool: str
    segment: int
    record_offset: int
    segment_sha256: str | None = None
    place: int | None = None
    head_place: int | None = None
    head_signed_at_ms: int | None = None
    head_signature: str | None = None
    audit_key_id: str | None = None
    steps: list[Step] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return all(step.holds for step in self.steps)


def prove(clickhouse: ClickHouse, name: Name, means: Means) -> Proof:
    """Raises NotFound where nothing is stored of the message, CheckFailed where only its rows are, ClickHouseAway."""
    raws, bad = raw_messages(clickhouse, name)
    if not raws:
        _nothing_signed(clickhouse, name)
    raw = raws[0]
    proof = _introduce(name, raw)
    steps = proof.steps
    steps.append(_bytes(raws, bad))  # 1
    envelope = _signature(name, raw, means.roots, steps)  # 2
    if envelope is not None:
        steps.append(_refused(clickhouse, raw) or compare_rows(clickhouse, name, raw, means.catalogue))  # 3
    steps.append(_certificate(name, raw, means))  # 4
    _segment(clickhouse, raw, means, proof)  # 5 and 6
    return proof


def _nothing_signed(clickhouse: ClickHouse, name: Name) -> NoReturn:
    tables = "(SELECT * FROM events UNION ALL SELECT * FROM held_events)"
    [[rows]] = clickhouse.rows(
        f"SELECT count() FROM {tables} WHERE tenant = {{tenant:String}} AND device_id = {{device:String}} "  # noqa: S608  tables of ours
        "AND epoch = {epoch:UInt32} AND seq = {seq:UInt64}",
        parameters_of(name),
    )
    who = f"epoch {name.epoch}, seq {name.seq} of {name.tenant}/{name.device_id}"
    if int(rows):
        raise CheckFailed(
            f"{who} has {rows} rows and no signed bytes: raw_messages keeps them for load.raw_days only. The rows "
            "cannot be proved by the device's signature any more; `fleetgate verify segments` still checks them"
        )
    raise NotFound(f"nothing is stored of {who}: not accepted, or not loaded yet (`fleetgate spool ls`)")


def _introduce(name: Name, raw: Raw) -> Proof:
    fields = {field: getattr(raw, field) for field in raw.__struct_fields__ if field not in ("raw", "flags")}
    return Proof(**name._asdict(), **fields, envelope_bytes=len(raw.raw) // 2)


def _bytes(raws: Sequence[Raw], bad: Sequence[str]) -> Step:
    if bad:
        return Step("bytes", False, f"{bad[0]}: it was put beside the message")
    if len(raws) > 1:
        places = ", ".join(f"segment {raw.segment} at {raw.record_offset}" for raw in raws)
        return Step("bytes", False, f"raw_messages has it {len(raws)} times ({places}): one message is stored once")
    return Step("bytes", True, f"raw_messages has its {len(raws[0].raw) // 2} bytes as received, once")


def _signature(name: Name, raw: Raw, roots: Mapping[int, bytes], steps: list[Step]) -> Envelope | None:
    """The envelope where its MAC holds. A wrong one ends the look at rows: nobody signed for them."""
    step = "signature"
    try:
        envelope = open_envelope(bytes.fromhex(raw.raw), json_allowed=True)
    except Reject as refusal:
        steps.append(Step(step, False, f"the bytes are no envelope ({refusal.reason}): they are not what was received"))
        return None
    if (envelope.epoch, envelope.seq) != (name.epoch, name.seq):
        other = f"epoch {envelope.epoch}, seq {envelope.seq}"
        steps.append(Step(step, False, f"the bytes are those of another message ({other})"))
        return None
    if envelope.kid not in roots:
        what = (
            f"the keyring has no root key {envelope.kid}: name one that has it with --keyring (retired ones are kept)"
        )
        steps.append(Step(step, None, what))
        return None
    try:
        check_mac(envelope, MacKeys(roots, name.tenant, name.device_id, bytes.fromhex(raw.key_digest)))
    except Reject:
        who = f"{name.tenant}/{name.device_id}"
        what = f"the MAC does not hold under root key {envelope.kid}: {who} did not sign these bytes"
        steps.append(Step(step, False, what))
        return None
    steps.append(Step(step, True, f"the MAC holds under root key {envelope.kid} for the key {raw.key_digest[:12]}..."))
    return envelope


def _certificate(name: Name, raw: Raw, means: Means) -> Step:
    step, shown = "certificate", f"{raw.certificate_fingerprint[:12]}..."
    try:
        known = means.certificates(name.tenant, name.device_id)
    except FleetgateError as error:
        return Step(step, None, f"the control records cannot be asked: {error}")
    if (bytes.fromhex(raw.key_digest), bytes.fromhex(raw.certificate_fingerprint)) in known:
        return Step(step, True, f"certificate {shown} was issued to this device for the key {raw.key_digest[:12]}...")
    return Step(step, False, f"control has no certificate {shown} of this device for the key {raw.key_digest[:12]}...")


def _refused(clickhouse: ClickHouse, raw: Raw) -> Step | None:
    """Of a message whose rows ClickHouse did not take: its segment is parked, and that is no tampering."""
    table = "held_events" if raw.outcome == "held" else "events"
    place: dict[str, str | int] = {"spool": raw.spool, "segment": raw.segment, "offset": raw.record_offset}
    where = "spool = {spool:String} AND segment = {segment:UInt64}"
    rows = chain_rows(clickhouse, where, place, "place")
    if not rows or not rows[-1].refused:
        return None
    if not any(first <= raw.record_offset <= last for first, last in getattr(rows[-1], f"{table}_absent")):
        return None
    [[there]] = clickhouse.rows(
        f"SELECT count() FROM {table} WHERE {where} AND record_offset = {{offset:UInt64}}",  # noqa: S608  a table of ours
        place,
    )
    if int(there):
        return None
    return Step(
        "rows",
        None,
        f"ClickHouse refused this message's rows for {table}, as its segment's row says ({rows[-1].refused} rows "
        f"refused): segment {raw.segment} is parked; mend what parked/ names, then `fleetgate spool retry`",
    )


def _segment(clickhouse: ClickHouse, raw: Raw, means: Means, proof: Proof) -> None:
    where = "spool = {spool:String} AND segment = {segment:UInt64}"
    rows = chain_rows(clickhouse, where, {"spool": raw.spool, "segment": raw.segment}, "place")
    if not rows:
        what = (
            f"segment {raw.segment} has no row in `segments`: it is parked or being loaded, or its row was taken away"
        )
        proof.steps.append(Step("segment", False, what))
        return
    row = rows[-1]
    proof.segment_sha256, proof.place = row.sha256, row.place
    if not row.place:
        proof.steps.append(Step("segment", None, f"segment {raw.segment} was loaded by a version that kept no hashes"))
        return
    report = Report()
    check_rows(clickhouse, raw.spool, [Expected(raw.segment, rows)], means.keeping, report)
    wrong = "; ".join(finding.what for finding in report.findings)
    good = f"all {report.rows} rows of segment {raw.segment} ({row.sha256[:12]}...) are those that load wrote"
    proof.steps.append(Step("segment", not wrong, wrong or good))
    first = next((row for row in rows if not _came_later(row, raw)), row)
    proof.steps.append(_head(clickhouse, first, means, proof))


def _came_later(row: ChainRow, raw: Raw) -> bool:
    """Whether this row of the segment does not stand for the message's rows, so that a later one does."""
    table = "held_events" if raw.outcome == "held" else "events"
    spans = getattr(row, f"{table}_absent") + row.raw_messages_absent
    return any(first <= raw.record_offset <= last for first, last in spans)


def _head(clickhouse: ClickHouse, row: ChainRow, means: Means, proof: Proof) -> Step:
    good, _ = sort_out((signed for signed in means.heads if signed.head.spool == row.spool), means.public_key)
    signed = min((s for s in good if s.head.place >= row.place), key=lambda s: s.head.place, default=None)
    if signed is None:
        return Step("head", None, "no head of the chain is signed behind this segment yet; one is each minute")
    where = "spool = {spool:String} AND place >= {first:UInt64} AND place <= {last:UInt64}"
    parameters: dict[str, str | int] = {"spool": row.spool, "first": row.place - 1, "last": signed.head.place}
    chain = {found.place: found for found in chain_rows(clickhouse, where, parameters, "place")}
    before = chain.get(row.place - 1)
    link = before.link if before is not None else NO_LINK
    for place in range(row.place, signed.head.place + 1):
        if place not in chain:
            return Step("head", False, f"the chain lacks place {place}, between this segment and the next signed head")
        link = next_link(link, chain[place].digest())
    proof.head_place, proof.head_signed_at_ms = signed.head.place, signed.signed_at
    proof.head_signature, proof.audit_key_id = signed.signature, signed.key_id
    if link != signed.head.link:
        return Step(
            "head", False, f"the chain from this segment does not lead to the head signed at place {signed.head.place}"
        )
    return Step(
        "head", True, f"the head at place {signed.head.place}, signed by the audit key, stands for this segment"
    )
