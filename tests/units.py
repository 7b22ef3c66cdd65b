"""A telematics unit and its messages, as the tests of the judge and of the edge need them.

Signs with its own few lines, written from schemas/envelope.md, so that a mistake in `judge.keys` or `judge.mac` does
not agree with itself. Nothing here is a mock: what it makes are the judge's own objects.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from typing import Any

import msgspec

from fleetgate.judge import Credential, Device, Peer, Policy, Verdict, claim, judge
from fleetgate.judge.body import Bodies
from fleetgate.judge.keys import MacKeys

NOW = 1_767_225_600_000  # 2026-01-01T00:00:00Z
ROOTS: dict[int, bytes | None] = {1: bytes(range(32)), 2: bytes(range(32, 64)), 9: None}  # 9 is retired
POLICY = Policy("test", Bodies({"Vehicle.Speed": 1, "Vehicle.OBD.DTCList": 44}))
EVENT = [-1500, "sample", {1: 88.25}, {44: "P0301"}]
BODY = msgspec.msgpack.encode(["2026.44.1", "cfg-7f3a", [EVENT]])
KEY_DIGEST = hashlib.sha256(b"the public key of a test unit").digest()
TENANT, DEVICE_ID = "acme", "tcu-0001"
TOPIC = f"fleet/v1/{TENANT}/{DEVICE_ID}/telemetry".encode()

pack = msgspec.msgpack.Encoder().encode


def hkdf(root: bytes, tenant: str, device_id: str, key_digest: bytes) -> bytes:
    """RFC 5869 with one block of output, for the info of schemas/envelope.md, section 2."""
    info = b"mac" + b"".join(struct.pack(">H", len(name)) + name.encode() for name in (tenant, device_id))
    extracted = hmac.digest(b"fleetgate/v1", root, "sha256")
    return hmac.digest(extracted, info + key_digest + b"\x01", "sha256")


MAC_KEY = hkdf(bytes(range(32)), TENANT, DEVICE_ID, KEY_DIGEST)


def elements(
    *,
    v: int = 1,
    kid: int = 1,
    epoch: int = 1,
    seq: int = 0,
    sent_at: int = NOW,
    enc: int = 1,
    body: bytes = BODY,
    key: bytes = MAC_KEY,
) -> list[Any]:
    """The eight elements of a signed message."""
    header = struct.pack(">BBIIQq", v, enc, kid, epoch, seq, sent_at)
    tag = hmac.digest(key, b"fleetgate/v1 mac\x00" + header + body, "sha256")[:16]
    return [v, kid, epoch, seq, sent_at, enc, body, tag]


def sign(**given: Any) -> bytes:
    """A signed message in MessagePack: an ordinary one, but for what is given (see `elements`)."""
    return pack(elements(**given))


def sign_json(**given: Any) -> bytes:
    """The same as a JSON object with base64."""
    names = ("v", "kid", "epoch", "seq", "sent_at", "enc", "body", "tag")
    values = dict(zip(names, elements(**given), strict=True))
    values["body"] = base64.b64encode(values["body"]).decode()
    values["tag"] = base64.b64encode(values["tag"]).decode()
    return msgspec.json.encode(values)


class Unit:
    """A device, its credential and one connection of it, before the judge."""

    def __init__(self, *, json_allowed: bool = False) -> None:
        self.device = Device(TENANT, DEVICE_ID, "veh-0001")
        self.credential = credential(KEY_DIGEST)
        self.peer = Peer(self.device, self.credential, json_allowed=json_allowed)

    def after_renewal(self, *former: Credential) -> None:
        """Gives the connection these former credentials beside the one it presents."""
        self.peer = Peer(self.device, self.credential, former, json_allowed=self.peer.json_allowed)

    def judge(self, raw: bytes, now: int = NOW, topic: bytes | None = None, policy: Policy = POLICY) -> Verdict:
        return judge(raw, self.peer, now, policy, topic)

    def take(self, raw: bytes, now: int = NOW) -> Verdict:
        """Judges and, as the edge does with the append, claims what is to be kept."""
        verdict = self.judge(raw, now)
        if verdict.outcome <= 2:
            claim(verdict, self.device, now)
        return verdict

    def windows(self) -> object:
        """All that a claim changes, to be compared."""
        rings = {
            epoch: (window.highest, window.newest_sent_at, window.slots.tobytes())
            for epoch, window in self.credential.windows.by_epoch.items()
        }
        return self.device.epoch, self.device.kid, self.device.kid_at, rings


def credential(key_digest: bytes, *, ended_at_ms: int | None = None) -> Credential:
    made = Credential(key_digest, hashlib.sha256(key_digest).digest(), MacKeys(ROOTS, TENANT, DEVICE_ID, key_digest))
    made.ended_at_ms = ended_at_ms
    return made


def former(name: str, ended_at_ms: int) -> tuple[Credential, bytes]:
    """A credential that a newer one replaced, and the MAC key its messages are signed with."""
    digest = hashlib.sha256(name.encode()).digest()
    return credential(digest, ended_at_ms=ended_at_ms), hkdf(bytes(range(32)), TENANT, DEVICE_ID, digest)
