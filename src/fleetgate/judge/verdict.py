"""The words of a judgement: outcomes, reasons, flags, and the verdict that carries them.

One closed set of each, used with the same spelling in code, metrics, records and documents. What a device does on a
reason is docs/reference/reasons.md; whom a reason may score is `accept.standing`.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag, StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from fleetgate.judge.envelope import Envelope
    from fleetgate.judge.identity import Credential


class Outcome(IntEnum):
    """What becomes of a message; the numbers of the first two stand in spool records."""

    ACCEPTED = 1
    HELD = 2  # verified, but its device is in quarantine: acknowledged and kept apart
    DUPLICATE = 3  # its own tag stands in its slot: acknowledged, counted, not stored
    REJECTED = 4


class Reason(StrEnum):
    """Why a message or connection was refused; the closed set."""

    MALFORMED_ENVELOPE = "malformed_envelope"
    UNSUPPORTED_VERSION = "unsupported_version"
    MALFORMED_BODY = "malformed_body"
    OVERSIZED = "oversized"
    IDENTITY_MISMATCH = "identity_mismatch"
    BAD_MAC = "bad_mac"
    UNKNOWN_KEY = "unknown_key"
    UNKNOWN_DEVICE = "unknown_device"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    BANNED = "banned"
    CLOCK_AHEAD = "clock_ahead"
    TOO_OLD = "too_old"
    BEHIND_WINDOW = "behind_window"
    STALE_EPOCH = "stale_epoch"
    EQUIVOCATION = "equivocation"
    RATE_LIMITED = "rate_limited"


STEP_OF: dict[Reason, int] = {
    Reason.OVERSIZED: 0,
    Reason.RATE_LIMITED: 0,
    Reason.MALFORMED_ENVELOPE: 1,
    Reason.UNSUPPORTED_VERSION: 1,
    Reason.IDENTITY_MISMATCH: 2,
    Reason.UNKNOWN_DEVICE: 2,
    Reason.SUSPENDED: 2,
    Reason.REVOKED: 2,
    Reason.BANNED: 2,
    Reason.BAD_MAC: 3,
    Reason.UNKNOWN_KEY: 3,
    Reason.CLOCK_AHEAD: 4,
    Reason.TOO_OLD: 4,
    Reason.BEHIND_WINDOW: 5,
    Reason.STALE_EPOCH: 5,
    Reason.EQUIVOCATION: 5,
    Reason.MALFORMED_BODY: 6,
}
"""The numbered step that finds each reason; 0 is admission, before the judge."""


class Flag(IntFlag):
    """What is remarkable about an accepted message; the bits of spool records and of the column `flags`."""

    OUT_OF_ORDER = 1
    LATE = 2
    EPOCH_JUMP = 4
    CLOCK_SKEW = 8
    STALE_REVOCATION = 16
    FORMER_CREDENTIAL = 32


class Reject(Exception):
    """Raised by a step of the judge; caught once, at the judge's edge. `Reject(reason)`, `Reject(reason, scores)` or
    `Reject(reason, True, detail)`.

    `scores` is False where the refusal says nothing about the sender (a key that the gate itself lacks); `detail` says
    to a person where in the message it lies. There is no constructor of its own: one in Python costs 0.25 us, a fifth
    of what a flood of garbage costs the judge.
    """

    @property
    def reason(self) -> Reason:
        reason: Reason = self.args[0]
        return reason

    @property
    def scores(self) -> bool:
        return self.args[-1] is not False

    @property
    def detail(self) -> str:
        return self.args[2] if len(self.args) > 2 else ""


class Verdict(Struct, frozen=True, gc=False):
    """What the judge says of one message.

    `envelope` is None where step 1 refused, `credential` (the one that verified) where step 3 was not passed;
    `flags` are bits of `Flag`; `events` counts the events of a message that passed step 6, `software` is the version
    that its body names.
    """

    outcome: Outcome
    reason: Reason | None
    flags: int
    envelope: Envelope | None
    credential: Credential | None
    events: int
    scores: bool
    software: str = ""
