"""Step 5: the sequence. Replay windows: which numbers of which epochs were seen, and with which tag.

For each credential and epoch a ring of 1,024 slots of 8 bytes below the highest number seen: the first 8 bytes of the
tag, zero for none. So a slot tells a duplicate (same tag) from equivocation (another valid tag: a cloned or
rolled-back device). Looking up claims nothing; `claim` is called when the record enters the commit batch.

A device keeps at most 512 messages unacknowledged, so honest disorder stays inside the ring (compare WireGuard's
replay.go, which keeps bits only: it need not tell a clone from a retry).
"""

from __future__ import annotations

from array import array
from struct import Struct as Layout

from fleetgate.judge.verdict import Flag, Reason, Reject

WINDOW = 1024
_MASK = WINDOW - 1
_EMPTY = bytes(8 * WINDOW)
KEPT_EPOCHS = 8
EPOCH_JUMP = 1_000
DUPLICATE = -1


_first_8_bytes = Layout("<Q").unpack_from


def tag_prefix(tag: bytes) -> int:
    """The 8 bytes of a slot. Zero means empty, so a tag that starts with eight zeros is kept as one (2^-64)."""
    prefix: int = _first_8_bytes(tag)[0]
    return prefix or 1


class Window:
    """The ring of one epoch: slots for the numbers `highest - 1023` to `highest`.

    `newest_sent_at` (ms) tells when the freshness rule alone would refuse everything in it.
    """

    __slots__ = ("highest", "newest_sent_at", "slots")

    def __init__(self, highest: int = -1, newest_sent_at: int = 0, slots: bytes = _EMPTY) -> None:
        self.highest = highest
        self.newest_sent_at = newest_sent_at
        self.slots: array[int] = array("Q", slots)


class Windows:
    """The windows of one credential: at most the 8 highest epochs seen."""

    __slots__ = ("by_epoch",)

    def __init__(self) -> None:
        self.by_epoch: dict[int, Window] = {}

    def holds(self, epoch: int, seq: int, tag: bytes) -> bool:
        """Whether exactly this message stands in its slot."""
        window = self.by_epoch.get(epoch)
        if window is None or not window.highest - WINDOW < seq <= window.highest:
            return False
        return window.slots[seq & _MASK] == tag_prefix(tag)

    def look_up(self, epoch: int, seq: int, tag: bytes, current_epoch: int) -> int:
        """DUPLICATE, or the flags of the message's place; `current_epoch` is the device's highest.

        Raises Reject with stale_epoch, behind_window or equivocation.
        """
        window = self.by_epoch.get(epoch)
        if window is None:
            if epoch < current_epoch:
                raise Reject(Reason.STALE_EPOCH)
            return Flag.EPOCH_JUMP.value if epoch - current_epoch > EPOCH_JUMP else 0
        behind = window.highest - seq
        if behind < 0:
            return 0
        if behind >= WINDOW:
            raise Reject(Reason.BEHIND_WINDOW)
        seen = window.slots[seq & _MASK]
        if seen == 0:
            return Flag.OUT_OF_ORDER.value
        if seen == tag_prefix(tag):
            return DUPLICATE
        raise Reject(Reason.EQUIVOCATION)

    def claim(self, epoch: int, seq: int, tag: bytes, sent_at: int) -> int:
        """Marks the number as used by this tag. Only after `look_up` allowed it, only with the append. How far ahead of
        the highest it was: 1 for the next one."""
        window = self.by_epoch.get(epoch)
        if window is None:
            window = self._open(epoch)
        ahead = seq - window.highest
        if ahead > 0:
            if ahead >= WINDOW:
                window.slots = array("Q", _EMPTY)
            elif ahead > 1:
                for number in range(window.highest + 1, seq):
                    window.slots[number & _MASK] = 0
            window.highest = seq
        window.slots[seq & _MASK] = tag_prefix(tag)
        if sent_at > window.newest_sent_at:
            window.newest_sent_at = sent_at
        return ahead

    def highest(self, epoch: int) -> int:
        """The highest number seen of that epoch; -1 for none."""
        window = self.by_epoch.get(epoch)
        return window.highest if window is not None else -1

    def _open(self, epoch: int) -> Window:
        window = self.by_epoch[epoch] = Window()
        if len(self.by_epoch) > KEPT_EPOCHS:
            del self.by_epoch[min(self.by_epoch)]
        return window

    def forget(self, current_epoch: int, oldest_sent_at: int) -> list[int]:
        """Drops the windows in which freshness refuses everything; the current epoch stays. The epochs dropped."""
        stale = [
            epoch
            for epoch, window in self.by_epoch.items()
            if epoch != current_epoch and window.newest_sent_at < oldest_sent_at
        ]
        for epoch in stale:
            del self.by_epoch[epoch]
        return stale
