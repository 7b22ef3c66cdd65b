"""A device on the bench: a real core over a real journal, with a clock that is set by hand and no network."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from fleetsim.answers import Answer, Reaction
from fleetsim.bundle import Bundle, Device
from fleetsim.core import DeviceCore
from fleetsim.encode import Event, Form
from fleetsim.journal import Journal
from fleetsim.outbox import Draft, Entry

START_MS = 1_767_225_600_000
BUNDLE = Bundle("acme", "tcu-0001", "veh-1", 1, bytes(range(32)), Path("nowhere"))


class Notes:
    """The book: remembers what became of each message."""

    def __init__(self) -> None:
        self.fates: list[tuple[tuple[int, int], str, str]] = []
        self.signed_keys: list[tuple[int, int]] = []

    def signed(self, bundle: Device, entry: Entry, body: bytes, events: int) -> int:
        self.signed_keys.append(entry.key)
        return len(self.signed_keys)

    def recovered(self, bundle: Device, entry: Entry) -> int:
        return 0

    def sent(self, entry: Entry) -> None:
        """Counted by the entry itself."""

    def answered(self, entry: Entry, label: str) -> None:
        """`closed` says the same at the end."""

    def closed(self, entry: Entry, label: str, fate: str) -> None:
        self.fates.append((entry.key, label, fate))


class Bench:
    """`core` over `journal`; `now_ms` moves only when a test moves it."""

    def __init__(self, path: Path, form: Form = "msgpack") -> None:
        self.now_ms = float(START_MS)
        self.path = path
        self.form: Form = form
        self.start()

    def start(self) -> None:
        """Start the device's process (again), on the same disk."""
        self.journal = Journal(self.path)
        self.notes = Notes()
        clock: Callable[[], float] = lambda: self.now_ms  # noqa: E731 - read at every call
        self.core = DeviceCore(BUNDLE, self.journal, self.notes, clock, random.Random(1), form=self.form)

    def connect(self, gate_epoch: int = 0, ahead_ms: int = 0) -> None:
        """The gate greets the device and says that its clock is `ahead_ms` ahead of the device's."""
        self.core.told_time(self.now_ms + ahead_ms)
        self.core.connected(gate_epoch)
        self.journal.commit()

    def submit(self, count: int = 1) -> list[bool]:
        """Offer messages of one event that has just happened, and make them durable."""
        accepted = [self.core.submit(self.draft(i)) for i in range(count)]
        self.journal.commit()
        return accepted

    def draft(self, value: int = 0, age_ms: int = 100) -> Draft:
        """One event, `age_ms` old."""
        event = Event(int(self.now_ms) - age_ms, "sample", {1: float(value)}, {})
        return Draft("2026.44.1", "cfg-7f3a", 1, (event,))

    def take(self, count: int = 1_000) -> list[Entry]:
        """Everything that may be sent now, after bringing to disk what was signed anew."""
        taken: list[Entry] = []
        for _ in range(count):
            entry = self.core.take()
            if entry is None:
                self.journal.commit()
                entry = self.core.take()
            if entry is None:
                break
            taken.append(entry)
        return taken

    def send_one(self) -> Entry:
        """Connect, sign and send one message."""
        self.connect()
        self.submit()
        return self.take()[0]

    def answer(self, entry: Entry, label: str, reaction: Reaction, current_epoch: int | None = None) -> None:
        """The gate answers a message."""
        self.core.answered(entry.key, Answer(label, reaction, current_epoch))
        self.journal.commit()
