"""Step 3: the MAC. The only maker of an AuthenticEnvelope: what it returns was written by the device's own key.

Tries the presented credential, then at most two former ones, so that a message signed before a renewal can be
retried after it. Comparison is in constant time; there is one tag length.
"""

from __future__ import annotations

from hmac import compare_digest
from struct import Struct as Layout

from msgspec import Struct

from fleetgate.judge.envelope import TAG_BYTES, Envelope
from fleetgate.judge.identity import Credential, Peer
from fleetgate.judge.keys import MacKeys
from fleetgate.judge.verdict import Flag, Reason, Reject

FORMER_KID_MS = 7 * 24 * 3600 * 1000
"""A device's former root key verifies for this long after its first message under a newer one (schemas/envelope.md):
as long as a message may be old, so that a backlog signed before the change arrives whole."""

FORMER_CREDENTIAL_MS = 30 * 24 * 3600 * 1000
"""A former credential verifies for this long after its end: longer than any honest backlog (7 days)."""

_header = Layout(">BBIIQq").pack


class AuthenticEnvelope(Struct, frozen=True, gc=False):
    """An envelope, and the credential whose key made its tag. `flags` has former_credential where that is so."""

    envelope: Envelope
    credential: Credential
    flags: int


def authenticate(envelope: Envelope, peer: Peer, now: int) -> AuthenticEnvelope:
    """Raises Reject with bad_mac or unknown_key."""
    credential = peer.credential
    key = credential.macs.get(envelope.kid)
    if key is None:
        raise Reject(Reason.UNKNOWN_KEY, credential.macs.knows(envelope.kid))
    signed = (
        _header(envelope.v, envelope.enc, envelope.kid, envelope.epoch, envelope.seq, envelope.sent_at) + envelope.body
    )
    if compare_digest(key.digest(signed)[:TAG_BYTES], envelope.tag):
        flags = 0
    else:
        credential, flags = _former(envelope, peer, signed, now), Flag.FORMER_CREDENTIAL.value
    # Asked only of who has the key: the answer tells how far the device is.
    if envelope.kid < peer.device.kid and now - peer.device.kid_at > FORMER_KID_MS:
        raise Reject(Reason.UNKNOWN_KEY, False)  # time alone ended it: that scores nobody
    return AuthenticEnvelope(envelope, credential, flags)


def _former(envelope: Envelope, peer: Peer, signed: bytes, now: int) -> Credential:
    """The former credential whose key made the tag. Raises Reject with bad_mac."""
    for former in peer.former:
        if _may_verify(former, now) and _verifies(former, envelope, signed):
            return former
    raise Reject(Reason.BAD_MAC)


def check_mac(envelope: Envelope, macs: MacKeys) -> None:
    """For these keys alone, whatever became of their credential since. Raises Reject: bad_mac or unknown_key."""
    key = macs.get(envelope.kid)
    if key is None:
        raise Reject(Reason.UNKNOWN_KEY)
    head = _header(envelope.v, envelope.enc, envelope.kid, envelope.epoch, envelope.seq, envelope.sent_at)
    if not compare_digest(key.digest(head + envelope.body)[:TAG_BYTES], envelope.tag):
        raise Reject(Reason.BAD_MAC)


def _may_verify(former: Credential, now: int) -> bool:
    ended = former.ended_at_ms
    return former.refusal is None and ended is not None and now - ended <= FORMER_CREDENTIAL_MS


def _verifies(credential: Credential, envelope: Envelope, signed: bytes) -> bool:
    key = credential.macs.get(envelope.kid)
    return key is not None and compare_digest(key.digest(signed)[:TAG_BYTES], envelope.tag)
