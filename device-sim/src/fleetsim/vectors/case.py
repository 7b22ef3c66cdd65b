"""Decides what a test vector is, and makes the ordinary message that each case deviates from in one thing.

The fields of a file are described in schemas/vectors/README.md.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from fleetsim import encode, mac
from fleetsim.encode import Event, Form, Name
from fleetsim.signals import BY_NUMBER, BY_PATH

TENANT, DEVICE = "acme", "tcu-0001"
SPKI = hashlib.sha256(b"fleetgate test vectors: a public key").digest()
ROOTS = {1: bytes(range(32)), 2: bytes(range(32, 64))}
KEYS = {kid: mac.derive_key(root, TENANT, DEVICE, SPKI) for kid, root in ROOTS.items()}
NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
SENT_AT = NOW - 250  # an ordinary road: neither late nor ahead
MAX_LISTED, MAX_LISTED_BYTES = 64, 8_192

BODY = encode.Body("2026.44.1", "cfg-7f3a", [Event(-1500, "sample", {1: 88.25, 13: 71.5}, {44: "P0301"})])
pack = msgspec.msgpack.Encoder().encode
dump = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Case:
    """One vector."""

    name: str
    what: str
    expect: str
    envelope: bytes
    form: Form = "msgpack"
    flags: Sequence[str] | None = None
    before: Sequence[tuple[bytes, int]] = ()
    now: int = NOW
    body: encode.Body | None = None
    named_by: Literal["number", "path"] = "number"
    rebuilds: Sequence[str] = field(default=("envelope", "body"))

    def document(self) -> dict[str, Any]:
        """The file's content."""
        document: dict[str, Any] = {"what": self.what, "expect": self.expect}
        if self.flags is not None:
            document["flags"] = list(self.flags)
        document |= {
            "form": self.form,
            "tenant": TENANT,
            "device_id": DEVICE,
            "spki_sha256": SPKI.hex(),
            "roots": {str(kid): root.hex() for kid, root in ROOTS.items()},
            "now": self.now,
            "before": [{"envelope": raw.hex(), "now": now} for raw, now in self.before],
            "envelope": self.envelope.hex(),
        }
        if self.expect == "accepted":
            document |= self._content()
        return document

    def _content(self) -> dict[str, Any]:
        envelope = encode.decode_envelope(self.envelope)
        fields: dict[str, Any] = {n: getattr(envelope, n) for n in ("kid", "epoch", "seq", "sent_at", "enc")}
        events = (self.body or BODY).events
        content: dict[str, Any] = {
            "fields": {**fields, "body": envelope.body.hex()},
            "events_count": len(events),
            "rebuilds": list(self.rebuilds),
            "named_by": self.named_by,
            "software": (self.body or BODY).software,
            "config": (self.body or BODY).config,
        }
        if len(events) <= MAX_LISTED and len(envelope.body) <= MAX_LISTED_BYTES:
            content["events"] = [_expected(event) for event in events]
        return content


def message(
    *,
    epoch: int = 1,
    seq: int = 0,
    sent_at: int = SENT_AT,
    enc: int = 1,
    body: bytes | None = None,
    kid: int = 1,
    key: bytes | None = None,
    form: Form = "msgpack",
) -> bytes:
    """An ordinary signed message, but for what is given."""
    return encode.sign(
        KEYS[kid] if key is None else key,
        kid=kid,
        epoch=epoch,
        seq=seq,
        sent_at=sent_at,
        enc=enc,
        body=encode.encode_body(1, BODY) if body is None else body,
        form=form,
    )


def elements(**changed: object) -> list[object]:
    """The eight elements of an ordinary message, signed as they are changed where that is possible."""
    values: dict[str, Any] = {"kid": 1, "epoch": 1, "seq": 0, "sent_at": SENT_AT, "enc": 1, "v": 1}
    body = changed.get("body", encode.encode_body(1, BODY))
    signable = {**values, **{k: v for k, v in changed.items() if k in values}}
    try:
        tag = mac.tag(KEYS[1], mac.header(**signable), body if isinstance(body, bytes) else b"")
    except Exception:
        tag = bytes(mac.TAG_BYTES)
    names = ("v", "kid", "epoch", "seq", "sent_at", "enc", "body", "tag")
    return [{**signable, "body": body, "tag": tag, **changed}[name] for name in names]


def _expected(event: Event) -> dict[str, Any]:
    known = {_path(name): float(value) for name, value in event.signals.items() if _path(name) in BY_PATH}
    unknown = {str(name): float(v) for name, v in event.signals.items() if _path(name) not in BY_PATH}
    texts = {_path(name): text for name, text in event.texts.items()}
    return {"at": event.at, "kind": event.kind, "signals": known, "texts": texts, "unknown": unknown}


def _path(name: Name) -> str:
    if isinstance(name, int):
        return BY_NUMBER[name].path if name in BY_NUMBER else str(name)
    return name
