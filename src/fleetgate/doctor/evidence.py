"""What each step of the judge had before it: said in a sentence, for one message.

Looks where the judge looked (the same envelope, credentials, windows), and in two places where it may not: root keys
that are retired, and certificates of the device that have ended. They change no verdict; they say who signed a message
that is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from fleetgate.catalogue import catalogue
from fleetgate.clock import utc
from fleetgate.control.records import CredentialStatus, DeviceState, DeviceStatus
from fleetgate.control.roster import DeviceDetail
from fleetgate.doctor.capture import Capture
from fleetgate.doctor.certificate import clip
from fleetgate.doctor.recall import Recalled
from fleetgate.judge import Outcome, Peer, Reason, Verdict
from fleetgate.judge.body import COLUMNS, ROWS_JSON, ROWS_MSGPACK, Column, Columns, NumberedEvent, NumberedRows
from fleetgate.judge.envelope import ARRAY_OF_EIGHT, UNDECODABLE, VERSION, Envelope, JsonEnvelope
from fleetgate.judge.freshness import MAX_AGE_MS, MAX_AHEAD_MS
from fleetgate.judge.keys import MacKeys
from fleetgate.judge.mac import check_mac
from fleetgate.judge.sequence import KEPT_EPOCHS, WINDOW, tag_prefix
from fleetgate.judge.verdict import Reject

_ENCODINGS = {ROWS_MSGPACK: "rows in MessagePack", ROWS_JSON: "rows in JSON", COLUMNS: "columns in MessagePack"}
Names = Mapping[int, Sequence[str]]
"""The names of the elements of an array, for each depth of a path that counts them."""

_IN_BODY: dict[int, Names] = {
    ROWS_MSGPACK: {0: NumberedRows.__struct_fields__, 2: NumberedEvent.__struct_fields__},
    COLUMNS: {0: Columns.__struct_fields__, 2: Column.__struct_fields__},
}


class Case(NamedTuple):
    """One message and everything it is judged by.

    `topic` is None for one that came over HTTPS; `peer` for a device that the records do not have. `roots` are all that
    the keyring has, the retired ones too; `certificates` (key digest, fingerprint) all that the device ever had.
    """

    key: tuple[str, str]
    capture: Capture
    topic: bytes | None
    now_ms: int
    recalled: Recalled
    peer: Peer | None
    detail: DeviceDetail | None
    roots: Mapping[int, bytes]
    active_kids: Sequence[int]
    certificates: Sequence[tuple[bytes, bytes]]

    @property
    def json_allowed(self) -> bool:
        return self.topic is None


# 1. Envelope.


def of_envelope(case: Case, verdict: Verdict) -> str:
    envelope = verdict.envelope
    if envelope is not None:
        form = "MessagePack" if case.capture.raw[:1] == ARRAY_OF_EIGHT else "JSON"
        numbers = f"kid {envelope.kid}, epoch {envelope.epoch}, seq {envelope.seq}"
        return f"{form}, {numbers}, body of {len(envelope.body)} bytes ({_ENCODINGS[envelope.enc]})"
    if verdict.reason is Reason.UNSUPPORTED_VERSION:
        return f"`v` is not {VERSION}, the version of this gate"
    return _no_envelope(case.capture.raw, case.json_allowed)


def _no_envelope(raw: bytes, json_allowed: bool) -> str:
    """Where the decoder stops, as precisely as it says."""
    head = raw[:1]
    decode: Callable[[bytes], object]
    if head == ARRAY_OF_EIGHT:
        decode = _decode_msgpack
    elif head in (b"{", b"[", b" ", b"\t", b"\r", b"\n"):
        if not json_allowed:
            return "it is JSON: over MQTT an envelope is a MessagePack array of eight (first byte 0x98)"
        if raw.lstrip()[:1] == b"[":
            return "it is a JSON array, as a batch is: give one envelope of it"
        decode = _decode_json
    else:
        batch = "; an array of another length, as a batch is: give one envelope of it" if head[0] >> 4 == 9 else ""
        return f"its first byte is {head[0]:#04x}, that of an envelope 0x98 (MessagePack) or `{{` (JSON, HTTPS){batch}"
    try:
        decode(raw)
    except UNDECODABLE as error:
        return clip(_by_name(str(error), {0: Envelope.__struct_fields__}))
    return "body or tag is not canonical base64 (RFC 4648 section 4, padded), or not of the right length"


def _by_name(error: str, names: Names) -> str:
    """The decoder's sentence with its path by names: `$[2][0][1]` of a body is events[0].kind."""

    def named(match: re.Match[str]) -> str:
        path = ""
        for depth, part in enumerate(re.findall(r"\[([^\]]*)\]", match[1])):
            fields = names.get(depth, ())
            known = part.isdecimal() and int(part) < len(fields)
            path += f".{fields[int(part)]}" if known else f"[{part}]"
        return path.lstrip(".") or "the whole"

    return re.sub(r"`\$((?:\[[^\]]*\])*)`", named, error)


# 2. Identity.


def of_identity(case: Case, verdict: Verdict) -> str:
    tenant, device_id = case.key
    match verdict.reason:
        case Reason.IDENTITY_MISMATCH if case.peer is not None and case.topic is not None:
            return (
                f"sent to {clip(ascii(case.topic)[2:-1])}, and the certificate may use {case.peer.topic.decode()} alone"
            )
        case Reason.UNKNOWN_DEVICE if case.detail is None:
            return f"the records have no device {device_id} of tenant {tenant}"
        case Reason.UNKNOWN_DEVICE if case.peer is None:
            return f"the records have no credential of {device_id} that could still be shown"
        case Reason.REVOKED | Reason.SUSPENDED | Reason.BANNED | Reason.UNKNOWN_DEVICE:
            return _kept_out(case, verdict.reason)
    held = "; in quarantine, so it is kept apart" if case.peer is not None and case.peer.device.held else ""
    address = "sent to its own topic" if case.topic is not None else "without a topic, as over HTTPS"
    return f"{device_id} of {tenant} is {case.detail.status if case.detail else 'known'}{held}; {address}"


def _newest(case: Case) -> str:
    return f"{case.peer.credential.fingerprint.hex()[:12]}..." if case.peer is not None else "of the device"


def _kept_out(case: Case, reason: Reason) -> str:
    """By the records; or by what the edge was told once, and records that are older do not say."""
    detail = case.detail
    entry = detail.credentials[0] if detail is not None and detail.credentials else None
    if reason is Reason.REVOKED and entry is not None and entry.status == CredentialStatus.REVOKED:
        since = f" since {utc(entry.ended_at_ms)}" if entry.ended_at_ms is not None else ""
        return f"certificate {_newest(case)} is revoked{since}" + (f": {clip(entry.reason)}" if entry.reason else "")
    standing = _standing(detail)
    if reason is not Reason.REVOKED and standing != DeviceStatus.ACTIVE:
        return f"{case.key[1]} of {case.key[0]} is {standing}{_by_whom(detail)}"
    return f"the edge was told {reason} by newer records than these, which were restored from an older day"


def _by_whom(detail: DeviceDetail | None) -> str:
    """Since when, and why."""
    taken = detail.kept_out_by if detail is not None else None
    if taken is None:
        return ""
    return f" since {utc(taken.at_ms)}" + (f": {clip(taken.reason)}" if taken.reason else "")


def _standing(detail: DeviceDetail | None) -> str:
    """What people decided, or security did."""
    if detail is None:
        return DeviceStatus.ACTIVE
    return detail.state if detail.state == DeviceState.BANNED else detail.status


# 3. MAC.


def of_mac(case: Case, verdict: Verdict) -> str:
    envelope, verified = verdict.envelope, verdict.credential
    if envelope is None or case.peer is None:
        return ""
    kid = envelope.kid
    if verified is not None and verified is case.peer.credential:
        return f"the tag is that of root key {kid} for the device's certificate {_newest(case)}"
    if verified is not None:
        former = f"{verified.fingerprint.hex()[:12]}..., ended {_ended(verified.ended_at_ms)}"
        return f"the tag is that of root key {kid} for the former certificate {former}"
    if verdict.reason is Reason.UNKNOWN_KEY:
        active = ", ".join(map(str, case.active_kids))
        state = "has ended: the live gate refuses it" if kid in case.roots else "is unknown"
        if kid in case.active_kids:
            state = "is a former one of the device, which has sent under a newer one for more than 7 days"
        return f"root key {kid} {state}; those that verify are {active}{_who_signed(case, envelope)}"
    tried = 1 + len(case.peer.former)
    nobody = f"no certificate that may verify made the tag under root key {kid} (tried: {tried})"
    return f"{nobody}{_who_signed(case, envelope)}"


def _ended(ms: int | None) -> str:
    return utc(ms) if ms is not None else "at an unknown time"


def _who_signed(case: Case, envelope: Envelope) -> str:
    """Whether any key that this device ever had made the tag."""
    for kid, root in case.roots.items():
        for digest, fingerprint in dict(case.certificates).items():
            try:
                check_mac(envelope, MacKeys({envelope.kid: root}, *case.key, digest))
            except Reject:
                continue
            wrong = f", with the key of root {kid}" if kid != envelope.kid else ""
            certificate = f"certificate {fingerprint.hex()[:12]}... ({_status(case, fingerprint)})"
            return f". The device did sign it: {certificate}{wrong}"
    return ". No key that this device ever had made it: altered on the way, another device's, or a wrong MAC key"


def _status(case: Case, fingerprint: bytes) -> str:
    entries = case.detail.credentials if case.detail is not None else []
    entry = next((entry for entry in entries if entry.fingerprint == fingerprint.hex()), None)
    if entry is None:
        return "not in the records"
    return entry.status if entry.ended_at_ms is None else f"{entry.status} since {utc(entry.ended_at_ms)}"


# 4. Freshness.


def of_freshness(case: Case, verdict: Verdict) -> str:
    if verdict.envelope is None:
        return ""
    sent_at, fence_ms = verdict.envelope.sent_at, case.recalled.fence_ms
    age_ms = case.now_ms - sent_at
    age = f"{_span(age_ms)} before it is judged" if age_ms >= 0 else f"{_span(-age_ms)} after it is judged"
    told = f"sent_at is {utc(sent_at)}, {age}"
    match verdict.reason:
        case Reason.TOO_OLD if sent_at < fence_ms:
            return f"{told}, and before the fence of the spool at {utc(fence_ms)}"
        case Reason.TOO_OLD:
            return f"{told}: more than {_span(MAX_AGE_MS)}"
        case Reason.CLOCK_AHEAD:
            return f"{told}: more than {_span(MAX_AHEAD_MS)}, so the device's clock is ahead"
    if verdict.outcome is Outcome.DUPLICATE and (sent_at < fence_ms or not -MAX_AHEAD_MS <= age_ms <= MAX_AGE_MS):
        return f"{told}: no bound for this very message, which was taken before"
    return told


# 5. Sequence.


def of_sequence(case: Case, verdict: Verdict) -> str:
    envelope, credential = verdict.envelope, verdict.credential
    if envelope is None or credential is None or case.peer is None:
        return ""
    current, window = case.peer.device.epoch, credential.windows.by_epoch.get(envelope.epoch)
    where = f"epoch {envelope.epoch}, seq {envelope.seq}"
    if window is None:
        if verdict.reason is Reason.STALE_EPOCH:
            kept = ", ".join(map(str, sorted(credential.windows.by_epoch))) or "none"
            return f"{where}: the device is in epoch {current}, and windows are kept of its last {KEPT_EPOCHS} ({kept})"
        return f"{where}: a new epoch; the device's highest is {current}"
    behind = window.highest - envelope.seq
    if behind < 0:
        return f"{where}: {-behind} above the highest seen, {window.highest}"
    if behind >= WINDOW:
        return f"{where}: {behind} below the highest seen, {window.highest}; the window reaches {WINDOW - 1} back"
    seen = window.slots[envelope.seq % WINDOW]
    if verdict.outcome is Outcome.DUPLICATE:
        return f"{where}: duplicate; this very message was taken before (the highest seen is {window.highest})"
    if verdict.reason is Reason.EQUIVOCATION:
        tags = f"{_prefix(seen)} was taken, this one is {_prefix(tag_prefix(envelope.tag))}"
        return f"{where}: the number was used for another message (tag {tags})"
    return f"{where}: {behind} below the highest seen, {window.highest}; its slot is free"


def _prefix(slot: int) -> str:
    return slot.to_bytes(8, "little").hex() + "..."


# 6. Body.


def of_body(case: Case, verdict: Verdict) -> str:
    envelope = verdict.envelope
    if envelope is None:
        return ""
    if verdict.reason is not Reason.MALFORMED_BODY:
        return f"{verdict.events} event{'s' if verdict.events != 1 else ''}"
    try:
        catalogue().bodies.open(envelope.enc, envelope.body)
    except Reject as refusal:
        return f"{_ENCODINGS[envelope.enc]}: {clip(_by_name(refusal.detail, _IN_BODY.get(envelope.enc, {})))}"
    return ""


# How times are told.


def _span(ms: int) -> str:
    for unit, size in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000), ("s", 1_000)):
        if ms >= 2 * size or unit == "s":
            return f"{ms / size:.1f} {unit}" if ms % size and ms < 10 * size else f"{ms // size} {unit}"
    return f"{ms} ms"


_decode_msgpack = msgspec.msgpack.Decoder(Envelope).decode
_decode_json = msgspec.json.Decoder(JsonEnvelope).decode
