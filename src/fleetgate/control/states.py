"""The states of a device: which may follow which, and what stands where two processes saw it differently. Pure.

A machine puts a device under watch or into quarantine and may trust a watched one again; only a person lets it out of
quarantine, or bans it. Several machines and people act at once, and learn of each other late: `merge` says what stands,
whichever came first. When a score is high enough is decided by `accept.standing`; what is written where, by
`control.quarantine`.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from fleetgate.control.records import DeviceState


class Decision(StrEnum):
    RELEASE = "release"
    BAN = "ban"


class Classification(StrEnum):
    """What a person found out about the device."""

    BENIGN = "benign"  # it did what it was held for, and that is harmless
    FALSE_POSITIVE = "false_positive"  # it did not
    CONFIRMED = "confirmed"


_STATE = DeviceState
BY_MACHINE = MappingProxyType(
    {
        _STATE.TRUSTED: frozenset({_STATE.WATCHED, _STATE.QUARANTINED}),
        _STATE.WATCHED: frozenset({_STATE.TRUSTED, _STATE.QUARANTINED}),
        _STATE.RELEASED: frozenset({_STATE.WATCHED, _STATE.QUARANTINED}),
        _STATE.QUARANTINED: frozenset[DeviceState](),
        _STATE.BANNED: frozenset[DeviceState](),
    }
)
"""From each state, where a score may move a device."""

BY_PERSON = MappingProxyType(
    {
        Decision.RELEASE: (
            frozenset({_STATE.WATCHED, _STATE.QUARANTINED, _STATE.BANNED}),
            _STATE.RELEASED,
            frozenset(Classification),
        ),
        Decision.BAN: (
            frozenset({_STATE.TRUSTED, _STATE.WATCHED, _STATE.QUARANTINED, _STATE.RELEASED}),
            _STATE.BANNED,
            frozenset({Classification.CONFIRMED}),
        ),
    }
)
"""For each decision: from which states, into which, and what the person must have found. A device that was confirmed
bad and then mended may be released; one that was found harmless is not banned."""


class View(NamedTuple):
    """How a device stands for somebody: its state, since when, and when a person last decided on it; Unix ms.

    `at_ms` is that of the decision while its state stands, later once a machine moved the device again.
    """

    state: DeviceState
    at_ms: int
    decided_ms: int = 0


class Outcome(StrEnum):
    """What became of a transition that an edge recorded, once the records of control heard of it."""

    APPLIED = "applied"
    CONFIRMED = "confirmed"  # the device was in that state already; its time may have become later
    REPEATED = "repeated"  # the same record was applied before
    OVERTAKEN = "overtaken"  # a person decided after it, or a later step stands
    NOT_POSSIBLE = "not_possible"  # no machine may make this step from where the device is now
    UNKNOWN_DEVICE = "unknown_device"  # these records do not have it (restored from an older copy)


_STERNNESS: Final = MappingProxyType(
    {_STATE.TRUSTED: 0, _STATE.RELEASED: 1, _STATE.WATCHED: 2, _STATE.QUARANTINED: 3, _STATE.BANNED: 4}
)


def merge(one: View, other: View) -> View:
    """What stands of two views of a device.

    A person's decision outlives every step of an earlier time. Of what came after it, a step into quarantine stands,
    whatever a machine that did not know of it did, earlier or later; else the latest, and of two at one time the
    sterner. A ban stands until a person decides again.
    """
    decided_ms = max(one.decided_ms, other.decided_ms)
    standing = [view for view in (one, other) if view.decided_ms == decided_ms or view.at_ms > decided_ms]
    return max(standing, key=_weight)._replace(decided_ms=decided_ms)


def _weight(view: View) -> tuple[bool, bool, int, int]:
    return (view.state is _STATE.BANNED, view.state is _STATE.QUARANTINED, view.at_ms, _STERNNESS[view.state])


def moved(view: View, after: DeviceState, now_ms: int) -> View:
    """What stands once a machine that sees the device so gave it another state: newer than a person's decision, and,
    for that to stand over a sterner state, than the step before it. Two steps in one millisecond may be one."""
    sterner = _STERNNESS[after] > _STERNNESS[view.state]
    before_ms = view.at_ms if sterner else view.at_ms + 1
    return View(after, max(now_ms, before_ms, view.decided_ms + 1), view.decided_ms)


def step(view: View, after: DeviceState, at_ms: int) -> tuple[View, Outcome]:
    """A machine's step at that time, seen from `view`: what stands now, and what became of the step."""
    merged = merge(view, View(after, at_ms))
    if at_ms <= view.decided_ms:
        return view, Outcome.OVERTAKEN
    if after is view.state:
        return merged, Outcome.CONFIRMED
    if after not in BY_MACHINE[view.state]:
        # It changes nothing, but the edge that took it believes in it: the next decision has to be newer.
        return view._replace(at_ms=max(view.at_ms, at_ms)), Outcome.NOT_POSSIBLE
    return merged, Outcome.APPLIED if merged.state is after else Outcome.OVERTAKEN


def decided(view: View, decision: Decision, now_ms: int) -> View:
    """What stands once a person decided. Always newer than what any machine said so far, even one whose clock is ahead.

    Whether the decision ends this state, and goes with what was found, is BY_PERSON.
    """
    at_ms = max(now_ms, view.at_ms + 1)
    return View(BY_PERSON[decision][1], at_ms, at_ms)
