"""What kind of disorder a message is: an honest device's, or that of two who share its key. Pure: times are passed in.

Decides the class of each verified message that is not simply the next one, and which signal it raises, from what the
judge said, the replay window and the device's recent past. The rules, and why an honest device never meets the grave
ones, are docs/explanation/quarantine.md. What a signal weighs is decided by the policy.

An honest device repeats only what has no answer yet: at most 512 messages, once on a connection, in their order. Its
epoch ends when its process ends. One that lost its counter, or was restored from a backup, goes back in its own numbers
once, and its newer timeline is silent from then on; of two devices with one key both timelines go on.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from fleetgate.judge.sequence import Windows


class Disorder(StrEnum):
    """The closed set of classes; a metric's label, and a column of `rejections`."""

    DUPLICATE = "duplicate"  # a message again that may not have had its answer
    LATE = "late"  # held back on the way
    GAP = "gap"  # numbers were left out
    ROLLBACK = "rollback"  # used numbers, or an older epoch, as a backup brings them back
    RESET = "reset"  # used numbers from 0 on: the counter is lost
    REPLAY = "replay"  # a message again that had its answer
    CLONE = "clone"  # two timelines under one key


class Finding(NamedTuple):
    """A class, and the signal that is raised for it; empty for none."""

    disorder: Disorder
    signal: str = ""


MAX_UNANSWERED: Final = 512
"""A device gives out no number while that many wait for an answer (schemas/envelope.md)."""

OVERLAP_MS: Final = 120_000
"""A message of an older epoch that was signed so long after the newer one began is none that waited. Above what two
starts of one clock that is set by the gate can differ."""

OUTLIVED: Final = 3
"""An epoch that goes on behind so many newer ones, one after the other, is that of another process than theirs."""

IN_FLIGHT_MS: Final = 10_000
"""What is on its way when a device is told to stop arrives within this time: 128 messages over the slowest link."""

STOP_MS: Final = 9 * 60_000
"""A device that was told to stop comes back after ten minutes."""


class Repeats:
    """What one connection has brought again. `began` is the device's newest number when it began, as (epoch, number);
    None where messages may come over several connections at once.

    Somebody on the way may hold back what a connection brings, while the device goes on over another one. So what came
    first elsewhere is no replay here; a number is old only when its message is, and over HTTPS never."""

    __slots__ = ("_began", "_count", "_last", "_taken")

    def __init__(self, began: tuple[int, int] | None = None) -> None:
        self._began = began
        self._last: tuple[int, int] | None = None
        self._taken = (-1, -1)  # the newest number that was new on this connection
        self._count = 0

    def took(self, epoch: int, seq: int) -> None:
        """A message of this connection whose number is not claimed yet."""
        if (epoch, seq) > self._taken:
            self._taken = (epoch, seq)

    def note(self, windows: Windows, epoch: int, seq: int, *, late: bool = False) -> Finding:
        """Of a message whose own tag stands in its slot; `late` where it was signed minutes before it came."""
        key = (epoch, seq)
        repeated = self._last is not None and key <= self._last
        answered = self._began is not None and (
            self._began < key <= self._taken or (late and _given_out_since(windows, epoch, seq) >= MAX_UNANSWERED)
        )
        self._count += 1
        if not repeated:
            self._last = key
        if repeated or answered or self._count > MAX_UNANSWERED:
            return Finding(Disorder.REPLAY, "replay")
        return Finding(Disorder.DUPLICATE)

    def delayed(self) -> None:
        """Something was told to come later on this connection: what it brings again is in no order any more."""
        self._last = None


def _given_out_since(windows: Windows, epoch: int, seq: int) -> int:
    """How many numbers the device has given out behind this one, as far as they were seen."""
    return sum(
        window.highest - seq if number == epoch else window.highest + 1
        for number, window in windows.by_epoch.items()
        if number >= epoch
    )


class Timeline:
    """Which way a device's numbers go. `epoch_sent_at` is when the first message of its newest epoch was signed (Unix
    ms), 0 where nobody knows. `astray` while numbers have gone back: then `_epoch` and `_last` tell how far the older
    timeline has come, `_used` the epoch and the highest number of it before new ones were given out behind a stop,
    `_both` that the newer one went on meanwhile, and `_older_spoke` which of them was seen last. Since the newest epoch
    began, `_waited` new messages of older ones came; `_elder` is the one of them that was signed meanwhile,
    `_outlived` behind how many newer ones in turn, `_elder_spoke` whether behind the newest."""

    __slots__ = (
        "_both", "_connection", "_count", "_elder", "_elder_spoke", "_epoch", "_kind", "_last", "_older_spoke",
        "_outlived", "_stopped_ms", "_used", "_waited", "astray", "epoch_sent_at",
    )  # fmt: skip

    def __init__(self, epoch_sent_at: int = 0) -> None:
        self.epoch_sent_at = epoch_sent_at
        self.astray = self._both = self._older_spoke = False
        self._kind = Disorder.ROLLBACK
        self._epoch = self._last = self._stopped_ms = self._count = 0
        self._used: tuple[int, int] | None = None
        self._connection: object = None
        self._waited = self._outlived = 0
        self._elder, self._elder_spoke = -1, False

    def _begin(self, kind: Disorder) -> Finding:
        self.astray = self._older_spoke = True
        self._both = False
        self._kind = kind
        self._stopped_ms = self._count = 0
        self._epoch = -1
        self._used = None
        self._connection = None
        return Finding(kind, kind.value)

    def go_on(self, epoch: int, seq: int, sent_at: int, current_epoch: int, highest: int) -> Finding | None:
        """Of a new message, before its number is claimed: `current_epoch` is the device's newest, `highest` the newest
        number of the message's epoch. Asked of a message outside the current epoch, and of each while astray."""
        if epoch > current_epoch:
            self.epoch_sent_at, self.astray = sent_at, False  # a new process, whichever it is: it starts in order
            self._waited, self._elder_spoke = 0, False
            return Finding(Disorder.CLONE, "epoch_overlap") if self._outlived >= OUTLIVED else None
        if epoch < current_epoch and self.epoch_sent_at:
            self._note_older(epoch, sent_at)
        finding: Finding | None = None
        if not self.astray:
            waited = sent_at <= self.epoch_sent_at + OVERLAP_MS and self._waited <= MAX_UNANSWERED
            if waited or not self.epoch_sent_at:
                return None
            finding = self._begin(Disorder.ROLLBACK)
        elif epoch > self._epoch or (epoch == self._epoch and self._last < highest < seq):
            # The older timeline has not come that far: this is the other one.
            return self._alternate(older=False, overlap=epoch != self._epoch)
        else:
            finding = self._alternate(older=True, overlap=epoch != current_epoch)
            if self._stopped_ms and seq > highest and (self._used is None or self._used[0] != epoch):
                self._used = epoch, highest
        self._come_to(epoch, seq)
        return finding

    def conflict(self, epoch: int, seq: int, now_ms: int, connection: object) -> Finding:
        """Of a message under a number that another one has used. Its device is told to stop; on another `connection` it
        is told anew, as the answer may not have arrived."""
        over = self.astray and not self._both and self._stopped_ms and now_ms - self._stopped_ms > STOP_MS
        if not self.astray or over:
            finding = self._begin(Disorder.ROLLBACK if seq else Disorder.RESET)
        elif self._both or self._used_behind_the_stop(epoch, seq):
            self._both = True
            finding = Finding(Disorder.CLONE, "equivocation")
        elif self._stopped_ms and connection is not self._connection:
            self._stopped_ms = self._count = 0
            self._used = None  # another process may begin where that one did, and give out again what it gave out
            finding = Finding(self._kind, self._kind.value)
        elif self._went_on(now_ms):
            finding = Finding(Disorder.CLONE, "equivocation")
        else:
            finding = Finding(self._kind)
        if not self._stopped_ms:
            self._stopped_ms, self._connection = now_ms, connection
        self._older_spoke = True
        self._come_to(epoch, seq)
        self._count += 1
        return finding

    def _note_older(self, epoch: int, sent_at: int) -> None:
        """A new message of an epoch that should have ended."""
        self._waited += 1
        if sent_at <= self.epoch_sent_at:
            return
        if epoch != self._elder:
            self._elder, self._outlived, self._elder_spoke = epoch, 0, False
        if not self._elder_spoke:
            self._outlived, self._elder_spoke = self._outlived + 1, True

    def _come_to(self, epoch: int, seq: int) -> None:
        """The older timeline has come so far; what it repeats does not take it back."""
        self._last = max(self._last, seq) if epoch == self._epoch else seq
        self._epoch = epoch

    def _used_behind_the_stop(self, epoch: int, seq: int) -> bool:
        """Whether the number was given out behind the stop, and now again: one process does not do that."""
        return self._used is not None and epoch == self._used[0] and seq > self._used[1]

    def _went_on(self, now_ms: int) -> bool:
        """Whether this was sent after the device was told to stop on this connection."""
        if not self._stopped_ms:
            return False
        return now_ms - self._stopped_ms > IN_FLIGHT_MS or self._count >= MAX_UNANSWERED

    def _alternate(self, *, older: bool, overlap: bool) -> Finding:
        """Scores each time that the other one speaks: once both have, they are two."""
        switched = older is not self._older_spoke
        self._both = self._both or not older
        self._older_spoke = older
        if not self._both:
            return Finding(self._kind)
        signal = "epoch_overlap" if overlap else "equivocation"
        return Finding(Disorder.CLONE, signal if switched else "")


def signal_of(reason: str, disorder: str) -> str:
    """The signal that a refusal scores: used numbers are those of a lost counter, a backup, or a clone; of limits, only
    the device's own are on record as its refusal."""
    if reason == "rate_limited":
        return "rate_excess"
    return disorder if reason == "equivocation" and disorder in (Disorder.ROLLBACK, Disorder.RESET) else reason
