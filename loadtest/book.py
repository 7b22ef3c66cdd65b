"""Decides what a message counts for: when it was due, what it is called in the statistics, and how it ended.

The `Book` of a device core (fleetsim.outbox): told of everything, it tells locust and the journal. One message is one
request of the statistics, on every transport. Its response time runs from the moment when it was due (not when it was
sent, which a slow gate or a busy generator delays) to the durable acknowledgement, over all repetitions and
renumberings. One that never got an answer counts as a failure with the time it waited in vain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from loadtest.journal import NEVER_SENT, UNANSWERED, Journal

from fleetsim.answers import ACCEPTED, DUPLICATE
from fleetsim.bundle import Device
from fleetsim.outbox import Entry, Key

Tell = Callable[[str, float, str | None], None]
"""(name, response time in ms, None or why it failed) of one message."""


class Due(NamedTuple):
    """`name` in the statistics, and when it should have gone out, in Unix seconds."""

    name: str
    at_s: float


class Book:
    """Of one device. Before the core signs a draft, `next_due` is set."""

    def __init__(self, journal: Journal, device: int, tell: Tell, now_s: Callable[[], float]) -> None:
        self.next_due = Due("", 0.0)
        self._journal, self._device, self._tell, self._now_s = journal, device, tell, now_s
        self._due: dict[Key, tuple[Due, int]] = {}
        self._again: deque[tuple[Due, int]] = deque()  # in the core's order, which signs these before anything else

    def signed(self, bundle: Device, entry: Entry, body: bytes, events: int) -> int:
        due = self._again.popleft()[0] if self._again else self.next_due
        self._due[entry.key] = due, events
        return 0

    def recovered(self, bundle: Device, entry: Entry) -> int:
        raise AssertionError("the devices of a load test keep nothing on disk")

    def sent(self, entry: Entry) -> None:
        due, events = self._due[entry.key]
        self._journal.sent(self._device, entry.epoch, entry.seq, events, due.at_s)

    def answered(self, entry: Entry, label: str) -> None:
        self._journal.answered(self._device, entry.epoch, entry.seq, label)

    def put_off(self, keys: Iterable[Key]) -> None:
        """HTTP 429 or 503: no answer, the same bytes later."""
        for epoch, seq in keys:
            self._journal.answered(self._device, epoch, seq, "later")

    def closed(self, entry: Entry, label: str, fate: str) -> None:
        due, events = self._due.pop(entry.key)
        if fate == "renumbered":
            self._again.append((due, events))
        else:
            stored = fate == "stored" and label in (ACCEPTED, DUPLICATE)
            self._tell(due.name, self._waited_ms(due), None if stored else label)

    def give_up(self, unsent: Iterable[tuple[Due, int]]) -> None:
        """The device ends: what is still open failed, and so did what was due and never left (with its events)."""
        for due, _ in self._due.values():
            self._tell(due.name, self._waited_ms(due), UNANSWERED)
        for due, events in [*self._again, *unsent]:
            self.lost(due, events, NEVER_SENT)
        self._due.clear()
        self._again.clear()

    def lost(self, due: Due, events: int, label: str) -> None:
        """One that was due and never left."""
        self._journal.never_sent(self._device, events, due.at_s)
        self._tell(due.name, self._waited_ms(due), label)

    def _waited_ms(self, due: Due) -> float:
        return max(0.0, self._now_s() - due.at_s) * 1000
