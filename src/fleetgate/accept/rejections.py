"""What was refused since the last commit, as the records that the next one puts into the spool.

Decides what one record stands for: all refusals of one sender for one reason and class, counted exactly, with the
numbers of what its device had signed. What is refused, and why, is decided by the judge and by `intake`.
"""

from __future__ import annotations

from typing import Final

from fleetgate.accept.disorder import signal_of
from fleetgate.accept.known import KnownDevice
from fleetgate.accept.standing import Part
from fleetgate.judge import Reason
from fleetgate.spool.format import RejectionRecord
from fleetgate.spool.writer import Sender, Writer

MAX_RANGES: Final = 64
"""(epoch, first, last) ranges kept of one peer's refusals in one commit; beyond it only the count grows."""

_NO_PART = Part(0.0, 0)


class Refused:
    """Refusals of one sender for one reason and class."""

    __slots__ = ("count", "first_at", "known", "last_at", "ranges")

    def __init__(self, known: KnownDevice, now: int) -> None:
        self.known = known
        self.count = 0
        self.first_at = self.last_at = now
        self.ranges: list[tuple[int, int, int]] = []

    def record(self, reason: Reason, disorder: str) -> RejectionRecord:
        score, scored_at = self.known.standing.parts.get(signal_of(reason, disorder), _NO_PART)
        times = (self.first_at, self.last_at)
        return RejectionRecord(-1, reason.value, self.count, *times, self.ranges, score, scored_at, disorder)

    def note(self, epoch: int, seq: int) -> None:
        if self.ranges:
            last_epoch, first, last = self.ranges[-1]
            if last_epoch == epoch and last <= seq <= last + 1:
                self.ranges[-1] = (epoch, first, seq)
                return
        if len(self.ranges) < MAX_RANGES:
            self.ranges.append((epoch, seq, seq))


class Rejections:
    """Those that are not in the spool yet."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[Sender, Reason, str], Refused] = {}

    def note(
        self, known: KnownDevice, sender: Sender, reason: Reason, disorder: str, now: int, count: int = 1
    ) -> Refused:
        """So many more at `now` (Unix ms); `disorder` is their class, or empty."""
        key = (sender, reason, disorder)
        refused = self._waiting.get(key)
        if refused is None:
            refused = self._waiting[key] = Refused(known, now)
        refused.last_at = now
        refused.count += count
        return refused

    def write(self, writer: Writer) -> None:
        for (sender, reason, disorder), refused in self._waiting.items():
            writer.rejection(sender, refused.record(reason, disorder))
        self._waiting.clear()
