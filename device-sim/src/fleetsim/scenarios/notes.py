"""Decides what is remembered of a device's messages: how many, what the gate answered, and the latest bytes.

A row for each message, as `ledger` keeps it, would be a million rows for a day of a fleet.
"""

from collections import Counter, deque

from fleetsim.bundle import Device
from fleetsim.outbox import Entry

# Signed messages that somebody who sits in the unit, or on its way to the gate, could have captured.
CAPTURED = 64


class Notes:
    """The book of one device's core."""

    def __init__(self) -> None:
        self.sends = 0
        self.answers: Counter[str] = Counter()
        self.captured: deque[bytes] = deque(maxlen=CAPTURED)

    def signed(self, bundle: Device, entry: Entry, body: bytes, events: int) -> int:
        """As `outbox.Book`."""
        return 0

    def recovered(self, bundle: Device, entry: Entry) -> int:
        """As `outbox.Book`."""
        return 0

    def sent(self, entry: Entry) -> None:
        """As `outbox.Book`."""
        self.sends += 1
        self.captured.append(entry.raw)

    def answered(self, entry: Entry, label: str) -> None:
        """As `outbox.Book`."""
        self.answers[label] += 1

    def closed(self, entry: Entry, label: str, fate: str) -> None:
        """As `outbox.Book`."""
