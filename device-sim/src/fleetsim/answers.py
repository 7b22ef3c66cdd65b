"""Decides what a device does on each answer of the gate: the table of reasons, read from every transport.

It only names the reaction. `core` carries it out; the agents bring the codes here.
"""

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple


class Reaction(Enum):
    """What the device does with the message, and with itself."""

    DONE = auto()  # stored by the gate: forget it
    DROP = auto()  # forget it, log it
    STOP = auto()  # forget it, send nothing, come back after ten minutes, doubling to a day
    STOP_ABOVE = auto()  # as STOP; after it, where the gate names the epoch, the events again above that
    RENEW = auto()  # as STOP, and ask for another credential meanwhile
    SET_CLOCK = auto()  # set the clock, the events again under a new number
    RENUMBER = auto()  # the events again under a new number, unless an earlier send stayed unanswered
    ABOVE_EPOCH = auto()  # go on above the gate's epoch, and as RENUMBER
    LATER = auto()  # the same bytes later


ACCEPTED, DUPLICATE = "accepted", "duplicate"

# The closed set of reasons, as in docs/reference/reasons.md.
REACTIONS: Mapping[str, Reaction] = {
    ACCEPTED: Reaction.DONE,
    DUPLICATE: Reaction.DONE,
    "malformed_envelope": Reaction.DROP,
    "unsupported_version": Reaction.DROP,
    "malformed_body": Reaction.DROP,
    "oversized": Reaction.DROP,
    "identity_mismatch": Reaction.STOP,
    "bad_mac": Reaction.STOP,
    "unknown_key": Reaction.RENEW,
    "unknown_device": Reaction.RENEW,  # or another has renewed this device's credential: the gate finds that out so
    "suspended": Reaction.STOP,
    "revoked": Reaction.STOP,
    "banned": Reaction.STOP,
    "clock_ahead": Reaction.SET_CLOCK,
    "too_old": Reaction.RENUMBER,
    "behind_window": Reaction.RENUMBER,
    "stale_epoch": Reaction.ABOVE_EPOCH,
    "equivocation": Reaction.STOP_ABOVE,
    "rate_limited": Reaction.LATER,
}

# A PUBACK without a Reason String that we know. 0x83 alone says nothing that would allow a second sending.
PUBACK_REASONS: Mapping[int, str] = {
    0x00: ACCEPTED,
    0x10: ACCEPTED,  # no matching subscribers: a broker in between still took it
    0x97: "rate_limited",
}
PUBACK_REACTIONS: Mapping[int, Reaction] = {0x87: Reaction.STOP}

# CONNACK and DISCONNECT end a connection; codes that are not here mean: come back soon.
CONNACK_STOPS = frozenset({0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C})
DISCONNECT_STOPS = frozenset({0x87})
DISCONNECT_TOO_LARGE = 0x95

# HTTP statuses that answer a whole request; others from 500 up leave it open whether the gate stored anything.
HTTP_ITEMS, HTTP_SPLIT = 202, 413
HTTP_LATER = frozenset({429, 503})


class Answer(NamedTuple):
    """One message's answer; `label` is `accepted`, `duplicate`, a reason, or a code without one."""

    label: str
    reaction: Reaction
    current_epoch: int | None = None


STORED = Answer(ACCEPTED, Reaction.DONE)


def from_puback(code: int, reason: str | None = None, properties: Iterable[tuple[str, str]] | None = None) -> Answer:
    """Read a PUBACK: its code, its Reason String and its user properties."""
    if code == 0x00 and not reason:
        return STORED
    bare = PUBACK_REASONS.get(code, f"puback_{code:#04x}")
    label = reason if reason and reason in REACTIONS else bare
    if code >= 0x80 and label in (ACCEPTED, DUPLICATE):
        label = bare  # a refusal does not become a success by its text
    reaction = REACTIONS.get(label) or PUBACK_REACTIONS.get(code, Reaction.DROP)
    return Answer(label, reaction, _epoch_of(properties))


def from_item(item: Mapping[str, Any]) -> Answer:
    """Read one result of an HTTP 202. An item that says nothing we know is dropped, under its own words."""
    status, reason = item.get("status"), item.get("reason")
    label = str(reason if status == "rejected" else status)[:64]
    epoch = item.get("current_epoch")
    return Answer(label, REACTIONS.get(label, Reaction.DROP), epoch if isinstance(epoch, int) else None)


def _epoch_of(properties: Iterable[tuple[str, str]] | None) -> int | None:
    for name, value in properties or ():
        if name == "current_epoch" and value.isdecimal():
            return int(value)
    return None
