"""A device that this edge has in memory, and a connection of one: records, replay windows and standing in one place.

Only says what is known. How it gets into memory and out of it is decided by `fleet`, what follows from it by the rooms
that read it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fleetgate.accept.brake import Brake
from fleetgate.accept.denials import Denials
from fleetgate.accept.disorder import Repeats, Timeline
from fleetgate.accept.limits import Account
from fleetgate.accept.standing import Standing
from fleetgate.control.profile import CertificateIdentity
from fleetgate.control.records import DeviceRecord
from fleetgate.judge import Credential, Device, Peer, Reason
from fleetgate.spool.format import PeerRecord
from fleetgate.spool.writer import Sender

if TYPE_CHECKING:
    from fleetgate.accept.mqtt import Session

ISSUER_DIGITS = 16  # of 64: a person compares them, and an edge knows a handful of CAs

Key = tuple[str, str]
"""(tenant, device id)."""


def issuer_of(identity: CertificateIdentity) -> str:
    """The CA that issued a verified certificate: the beginning of the SHA-256 of its public key info, as `[issuers]`
    names CAs. The key, for it stays when the CA's own certificate is renewed. Empty where nobody verified a chain."""
    return identity.issuances[0].key.hex()[:ISSUER_DIGITS] if identity.issuances else ""


class KnownDevice:
    """A device in memory. `session` is its live MQTT session, `account` what it has left of its limits. `denials` is
    what control and this edge's memory say against it, now or later; `denied` is what of that is of the whole device,
    now. `software` is the version that its latest accepted or held message named, `issuer` the CA of its latest
    connection (`issuer_of`); both empty until then. `before_trouble` is what the two were when its score began to rise,
    None where it never did. `dirty` says that it changed since it was last taken for the checkpoint. `decided_ms` is
    when the last change of its records took effect that was learnt while it was in memory (Unix ms), 0 for none.
    `told_at` is the time of the newest step that was recorded since it came into memory, for load to tell control of; 0
    for none. `told_causes` are the signals that were recorded as what that step was for, where it led into quarantine.

    Monotonic seconds: `ahead_at` is when it last was ahead of the gate's clock, `idle_since` when it last went,
    `looked_at` when its record was last looked up for a credential that it does not have.
    """

    __slots__ = (
        "account",
        "ahead_at",
        "before_trouble",
        "brake",
        "credentials",
        "decided_ms",
        "denials",
        "denied",
        "device",
        "dirty",
        "idle_since",
        "issuer",
        "key",
        "looked_at",
        "record",
        "session",
        "software",
        "standing",
        "timeline",
        "told_at",
        "told_causes",
    )

    def __init__(self, record: DeviceRecord, standing: Standing, account: Account) -> None:
        self.record = record
        self.key: Key = (record.tenant, record.device_id)
        self.device = Device(record.tenant, record.device_id, record.vehicle_id or "")
        self.credentials: dict[bytes, Credential] = {}
        self.standing = standing
        self.timeline = Timeline()
        self.account = account
        self.brake = Brake()
        self.decided_ms = 0
        self.told_at = 0
        self.told_causes: list[str] = []
        self.denials: Denials = {}
        self.denied: Reason | None = None
        self.software = ""
        self.issuer = ""
        self.before_trouble: tuple[str, str] | None = None
        self.dirty = False
        self.session: Session | None = None
        self.ahead_at = -math.inf
        self.idle_since = 0.0
        self.looked_at = -math.inf

    def has_record_of(self, key_digest: bytes) -> bool:
        """Whether the records of control have this credential of the device."""
        return any(entry.key_digest == key_digest for entry in self.record.credentials)


class Caller:
    """One authenticated connection: the device, the judge's view of it (`peer`), the spool's (`sender`).

    `former_senders` are those of former credentials that verified something here, `repeats` what it brought again.
    """

    __slots__ = (
        "address", "edge_id", "former_senders", "known", "peer", "policy_version", "repeats", "sender", "transport",
    )  # fmt: skip

    def __init__(
        self, known: KnownDevice, peer: Peer, address: str, transport: str, edge_id: str, policy_version: str
    ) -> None:
        self.known = known
        self.peer = peer
        self.address = address
        self.transport = transport
        self.edge_id = edge_id
        self.policy_version = policy_version
        self.sender = self._sender(peer.credential)
        self.former_senders: dict[bytes, Sender] = {}
        # A device has one session, but may have several HTTPS connections.
        self.repeats = Repeats(_newest(peer) if transport == "mqtt" else None)

    def sender_of(self, credential: Credential) -> Sender:
        """The spool's name for this caller under the credential that verified."""
        if credential is self.peer.credential:
            return self.sender
        sender = self.former_senders.get(credential.key_digest)
        if sender is None:
            sender = self.former_senders[credential.key_digest] = self._sender(credential)
        return sender

    def _sender(self, credential: Credential) -> Sender:
        device = self.peer.device
        return Sender(
            PeerRecord(
                -1,
                device.tenant,
                device.vehicle_id,
                device.device_id,
                credential.fingerprint,
                credential.key_digest,
                self.address,
                self.transport,
                self.edge_id,
                self.policy_version,
            )
        )


def _newest(peer: Peer) -> tuple[int, int]:
    epoch = peer.device.epoch
    return epoch, max(credential.windows.highest(epoch) for credential in (peer.credential, *peer.former))
