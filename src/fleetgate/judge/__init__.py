"""The judge: bytes, a verified identity and the time in; a verdict out. Pure and synchronous.

1. envelope   decode, version, sizes                                    envelope.py
2. identity   addressed as the certificate says; status                 identity.py
3. MAC        constant time; the presented credential, then former ones  mac.py
4. freshness  sent_at against now                                       freshness.py
5. sequence   look (epoch, seq) up; nothing is claimed yet              sequence.py
6. body       decode and validate completely                            body.py

Beside them: keys.py derives the MAC keys, policy.py is what the judge is told from outside, verdict.py its answer.

No step runs before the one above it has passed, so nothing unauthenticated reaches the window. The number is claimed
by `claim`, together with the record entering the commit batch: a message that was refused never used its number up.
This package touches no socket, file, clock, log or randomness; a test holds that.
"""

from __future__ import annotations

from fleetgate.judge.body import Columns
from fleetgate.judge.envelope import Envelope, open_envelope
from fleetgate.judge.freshness import check_freshness
from fleetgate.judge.identity import Credential, Device, Peer, check_identity
from fleetgate.judge.mac import authenticate
from fleetgate.judge.policy import Policy
from fleetgate.judge.sequence import DUPLICATE
from fleetgate.judge.verdict import Flag, Outcome, Reason, Reject, Verdict

__all__ = ["Credential", "Device", "Flag", "Outcome", "Peer", "Policy", "Reason", "Verdict", "claim", "judge"]

_ACCEPTED, _HELD, _DUPLICATE, _REJECTED = Outcome  # looking a member up by name costs 40 ns each time


def judge(raw: bytes, peer: Peer, now: int, policy: Policy, topic: bytes | None = None) -> Verdict:
    """The verdict on one message. Never raises for anything in `raw`.

    `raw` is the envelope as received, `now` Unix milliseconds at receipt, `topic` the MQTT topic it was sent to
    (None over HTTPS, which has no address but the certificate).
    """
    envelope: Envelope | None = None
    credential: Credential | None = None
    try:
        envelope = open_envelope(raw, peer.json_allowed)  # 1
        check_identity(peer, topic)  # 2
        authentic = authenticate(envelope, peer, now)  # 3
        credential = authentic.credential
        flags = authentic.flags | check_freshness(authentic, now, policy.fence_ms)  # 4
        place = credential.windows.look_up(envelope.epoch, envelope.seq, envelope.tag, peer.device.epoch)  # 5
        if place == DUPLICATE:
            return Verdict(_DUPLICATE, None, flags, envelope, credential, 0, False)
        body = policy.bodies.open(envelope.enc, envelope.body)  # 6
    except Reject as refusal:
        return Verdict(_REJECTED, refusal.reason, 0, envelope, credential, 0, refusal.scores)
    events = body.n if isinstance(body, Columns) else len(body.events)
    outcome = _HELD if peer.device.held else _ACCEPTED
    flags |= place | peer.flags | policy.standing_flags
    return Verdict(outcome, None, flags, envelope, credential, events, False, body.software)


def claim(verdict: Verdict, device: Device, now: int) -> int:
    """Claims the number of an accepted or held message that was received at `now` (Unix ms): called with the append of
    its record, never before. How far ahead of the highest it was: more than 1 where numbers were left out."""
    envelope, credential = verdict.envelope, verdict.credential
    if envelope is None or credential is None:
        raise ValueError("only a verified message has a number to claim")
    ahead = credential.windows.claim(envelope.epoch, envelope.seq, envelope.tag, envelope.sent_at)
    if envelope.epoch > device.epoch:
        device.epoch = envelope.epoch
    if envelope.kid > device.kid:
        device.kid, device.kid_at = envelope.kid, now
    return ahead
