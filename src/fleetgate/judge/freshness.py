"""Step 4: freshness. Compares the device's clock at sending with the gate's at receipt.

A message that is already in its slot is a duplicate whatever its age (step 5 says so): a retry after a long outage
must not be refused for the time it waited.
"""

from __future__ import annotations

from fleetgate.judge.identity import Credential
from fleetgate.judge.mac import AuthenticEnvelope
from fleetgate.judge.verdict import Flag, Reason, Reject

MAX_AHEAD_MS = 60_000
SKEW_MS = 5_000
LATE_MS = 5 * 60 * 1000
MAX_AGE_MS = 7 * 24 * 3600 * 1000


def check_freshness(authentic: AuthenticEnvelope, now: int, fence_ms: int = 0) -> int:
    """The flags of the message's age: `late`, `clock_skew` or none.

    Raises Reject with clock_ahead or too_old, unless the message's own tag stands in its slot. What was sent before
    `fence_ms` (Unix ms) is too old whatever its age: the windows may have forgotten that they saw it.
    """
    sent_at = authentic.envelope.sent_at
    if sent_at < fence_ms and not _seen(authentic.credential, authentic):
        raise Reject(Reason.TOO_OLD)
    age_ms = now - sent_at
    if age_ms < -SKEW_MS:
        if age_ms < -MAX_AHEAD_MS and not _seen(authentic.credential, authentic):
            raise Reject(Reason.CLOCK_AHEAD)
        return Flag.CLOCK_SKEW.value
    if age_ms > LATE_MS:
        if age_ms > MAX_AGE_MS and not _seen(authentic.credential, authentic):
            raise Reject(Reason.TOO_OLD)
        return Flag.LATE.value
    return 0


def _seen(credential: Credential, authentic: AuthenticEnvelope) -> bool:
    envelope = authentic.envelope
    return credential.windows.holds(envelope.epoch, envelope.seq, envelope.tag)
