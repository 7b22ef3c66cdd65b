"""Step 2: identity. Whom the verified certificate speaks for, and whether the records still let it.

Holds the state that the judge reads and `claim` changes: a Device, its Credentials, the Peer of one connection. The
edge builds these from the certificate and the control records; nothing in a message can choose among them.
"""

from __future__ import annotations

from fleetgate.judge.keys import MacKeys
from fleetgate.judge.sequence import Windows
from fleetgate.judge.verdict import Reason, Reject


class Credential:
    """A key pair of a device: its MAC keys and its replay windows.

    `key_digest` and `fingerprint` are SHA-256 of the public key info and of the certificate; `ended_at_ms` is when a
    newer credential took its place (None: current); `refusal` is `revoked` once the records say so.
    """

    __slots__ = ("ended_at_ms", "fingerprint", "key_digest", "macs", "refusal", "windows")

    def __init__(self, key_digest: bytes, fingerprint: bytes, macs: MacKeys) -> None:
        self.key_digest = key_digest
        self.fingerprint = fingerprint
        self.macs = macs
        self.windows = Windows()
        self.ended_at_ms: int | None = None
        self.refusal: Reason | None = None


class Device:
    """A telematics unit as the gate knows it, shared by all its connections.

    `epoch` is the highest accepted under any credential (0: none yet), `kid` the highest key id, whose first message
    came at `kid_at` (Unix ms); `held` while it is in quarantine; `refusal` is set while the records of control keep it
    out.
    """

    __slots__ = ("device_id", "epoch", "held", "kid", "kid_at", "refusal", "tenant", "vehicle_id")

    def __init__(self, tenant: str, device_id: str, vehicle_id: str) -> None:
        self.tenant = tenant
        self.device_id = device_id
        self.vehicle_id = vehicle_id
        self.epoch = 0
        self.kid = 0
        self.kid_at = 0
        self.held = False
        self.refusal: Reason | None = None


class Peer:
    """One connection: the device, the credential it presented, and the former ones that may still verify.

    `former` has at most two, newest first. `topic` is the only address the peer may use, in the bytes of the wire;
    `json_allowed` is true on HTTPS. `flags` stand on every message that is accepted from it.
    """

    __slots__ = ("credential", "device", "flags", "former", "json_allowed", "topic")

    def __init__(
        self, device: Device, credential: Credential, former: tuple[Credential, ...] = (), *, json_allowed: bool
    ) -> None:
        self.device = device
        self.credential = credential
        self.former = former
        self.flags = 0
        self.json_allowed = json_allowed
        self.topic = f"fleet/v1/{device.tenant}/{device.device_id}/telemetry".encode("ascii")


def check_identity(peer: Peer, topic: bytes | None) -> None:
    """`topic` is what the message was addressed as, None where the transport has no address (HTTPS).

    Raises Reject with identity_mismatch, or with the status that keeps the device or its credential out.
    """
    if topic is not None and topic != peer.topic:
        raise Reject(Reason.IDENTITY_MISMATCH)
    refusal = peer.device.refusal or peer.credential.refusal
    if refusal is not None:
        raise Reject(refusal)
