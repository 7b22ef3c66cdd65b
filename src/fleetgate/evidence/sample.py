"""What is written down of one message that was refused or raised suspicion.

Decides the facts and how many bytes of a message are kept. Ids, digests and numbers of our own and of the envelope; no
key, no token, and of the message itself only its first bytes. Those may hold a position: who may read them and for how
long is `store`'s.
"""

from __future__ import annotations

from msgspec import Struct

RAW_BYTES = 4096
"""Of a message: a usual one whole. The digest is that of all its bytes."""


class Slot(Struct, frozen=True, array_like=True):
    """Where the message stood in the replay windows of its device when it was judged.

    `device_epoch` is the highest epoch accepted from the device, `highest` the highest number of the message's own
    epoch (None: the gate has no window of that epoch), `found` what was in the message's place.
    """

    device_epoch: int
    highest: int | None
    found: str


class Facts(Struct, frozen=True, array_like=True):
    """`what` is the judge's reason, or the signal that made it suspicious; `disorder` the class of disorder, where
    there is one. `verified` says whether the device's own key made the tag, None where the gate had refused before it
    looked; where it did, `fingerprint` is that of the certificate which verified it, else of the one that the
    connection presented. Envelope fields are None where it could not be read."""

    what: str
    disorder: str
    outcome: str
    edge_id: str
    vehicle_id: str
    address: str
    transport: str
    topic: str
    fingerprint: bytes
    verified: bool | None
    key_id: int | None
    epoch: int | None
    seq: int | None
    sent_at_ms: int | None
    slot: Slot | None
    state: str
    policy_version: str


class Sample(Struct, frozen=True):
    """One message of one device, received at `at_ms`; `raw` may be longer than what is kept of it."""

    tenant: str
    device_id: str
    at_ms: int
    facts: Facts
    raw: bytes


class Kept(Struct, frozen=True):
    """A sample as it is read back: `number` names it, `size` and `sha256` are of the whole message, `raw` its start."""

    number: int
    tenant: str
    device_id: str
    at_ms: int
    facts: Facts
    size: int
    sha256: bytes
    raw: bytes
