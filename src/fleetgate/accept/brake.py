"""How fast a device may be refused, and above its own limits sent to. Pure: the time is passed in.

A device is told of what it did wrong, and told again; one that goes on all the same gains nothing from faster answers,
and a thousand of them would take the gate's time and, with a record of each refusal, its disk. So behind a few refusals
at once its connection is read from every two seconds (the pace is the policy's): TCP pushes back, and every refusal
that it is told of is on record as ever. Only its own refusals brake a device, and only those that no good device goes
on causing: what its clock or its backlog is the reason for does not. It is the connection that is read less often,
whatever it sends: who mixes good messages with bad ones has them accepted later.

Who is above his own limits, and goes on after he was told as often as a client may have messages in flight, is read
from once he may send again: at the pace of his limits he loses nothing, and what is beyond them takes no more of the
gate's time, nor of what he shares with others.
"""

from __future__ import annotations

import math

from fleetgate.bucket import Bucket
from fleetgate.config import Policy
from fleetgate.judge.verdict import STEP_OF, Reason
from fleetgate.rates import Rate

LIMITED_AT_ONCE = 128
"""How often a device is told that it is above its limits before it waits: the Receive Maximum."""

_LIMITED = Rate(LIMITED_AT_ONCE, LIMITED_AT_ONCE)  # once a second then, as the socket loop looks after who waits

LONGEST_LIMITED_SECONDS = 10.0
"""A limit of so many a day may take hours to open: its device is told now and then that it is still not."""

BRAKING = frozenset(reason for reason, step in STEP_OF.items() if step in (1, 2, 3, 6)) | {Reason.EQUIVOCATION}


class Brake:
    """That of one device. It is not read from before `until_s` (monotonic seconds)."""

    __slots__ = ("_at_s", "_left", "_limited", "until_s")

    def __init__(self) -> None:
        self._left = math.inf  # what the policy grants at once
        self._at_s = 0.0
        self._limited = Bucket(_LIMITED)
        self.until_s = -math.inf

    def refused(self, now_s: float, policy: Policy) -> None:
        """One more refusal of the device."""
        pace = policy.refused_per_second
        left = min(policy.refused_at_once, self._left + (now_s - self._at_s) * pace) - 1
        self._at_s, self._left = now_s, max(0.0, left)
        if left < 1:
            self.until_s = now_s + 1 / pace

    def limited(self, now_s: float, wait_s: float) -> None:
        """Once more above the device's own limits, which let something pass again in `wait_s`."""
        self._limited.take(1, now_s)
        if self._limited.left < 1:
            self.until_s = max(self.until_s, now_s + min(wait_s, LONGEST_LIMITED_SECONDS))
