"""Decides the shapes that cross the border of `core`: what goes in, what is kept, and who is told.

How it is kept is `journal`'s and `ledger`'s; here are only the two interfaces.
"""

from typing import NamedTuple, Protocol

from fleetsim.bundle import Device
from fleetsim.encode import Event

Key = tuple[int, int]  # (epoch, seq)


class Draft(NamedTuple):
    """Events on their way into a message; their `at` is Unix milliseconds by the device's own clock, unset."""

    software: str
    config: str
    enc: int
    events: tuple[Event, ...]


class Entry:
    """A signed message in the outbox; `raw` are the bytes that go out, at every attempt the same."""

    __slots__ = (
        "doubtful",  # an earlier send stayed unanswered: the gate may have it
        "enc",
        "epoch",
        "offset_ms",  # the clock setting it was signed under; None: by an earlier process
        "raw",
        "ref",  # the book's own handle
        "sent_at",
        "seq",
        "signed_ms",  # the device's unset clock when it was signed; None: by an earlier process
        "ticket",  # sendable once the store's `durable` has reached it
    )

    def __init__(
        self,
        epoch: int,
        seq: int,
        sent_at: int,
        enc: int,
        raw: bytes,
        ticket: int,
        *,
        signed_ms: float | None = None,
        offset_ms: float | None = None,
        doubtful: bool = False,
    ) -> None:
        self.epoch, self.seq, self.sent_at, self.enc = epoch, seq, sent_at, enc
        self.raw, self.ticket, self.doubtful = raw, ticket, doubtful
        self.signed_ms, self.offset_ms = signed_ms, offset_ms
        self.ref = 0

    @property
    def key(self) -> Key:
        """(epoch, seq), which is also the order of sending."""
        return (self.epoch, self.seq)


class Store(Protocol):
    """What is durable on the device. Writes return a ticket; they are on disk once `durable` has reached it."""

    @property
    def durable(self) -> int: ...

    def load(self, device: str) -> tuple[int, list[tuple[int, int, bytes]]]:
        """The last epoch (0 for none) and the kept messages in the order of (epoch, seq)."""
        ...

    def open_epoch(self, device: str, epoch: int) -> int: ...

    def keep(self, device: str, epoch: int, seq: int, raw: bytes) -> int: ...

    def forget(self, device: str, epoch: int, seq: int) -> None: ...


class Book(Protocol):
    """Who is told of every message."""

    def signed(self, bundle: Device, entry: Entry, body: bytes, events: int) -> int:
        """A message got its number; the return value is kept in `entry.ref`."""
        ...

    def recovered(self, bundle: Device, entry: Entry) -> int:
        """A message of an earlier process was found on disk; as `signed`."""
        ...

    def sent(self, entry: Entry) -> None: ...

    def answered(self, entry: Entry, label: str) -> None: ...

    def closed(self, entry: Entry, label: str, fate: str) -> None:
        """Out of the outbox: `stored`, `dropped`, `renumbered` (its events are signed again) or `unknown`."""
        ...
