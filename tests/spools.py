"""A real spool on a real disk, as the tests of the spool and of the edge open, leave and reopen it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import msgspec

from fleetgate.spool.format import AlertRecord, PeerRecord, RejectionRecord, TransitionRecord
from fleetgate.spool.home import Spool
from fleetgate.spool.identity import Identity, read_identity
from fleetgate.spool.reader import Segment, read_segment, segment_paths
from fleetgate.spool.writer import Sender, Writer
from tests.units import NOW

ALERT = AlertRecord(
    "breaker edge-1 acme software 2026.45", "open", NOW, "breaker", "acme", "software 2026.45", {"vehicles": 20}
)
TRANSITION = TransitionRecord("acme", "tcu-0001", "trusted", "watched", NOW, "bad_mac", 50.0, "1")


class SetClock:
    """Stands still until somebody sets it."""

    def __init__(self) -> None:
        self.ms = NOW

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


def sender(number: int = 1) -> Sender:
    digest = hashlib.sha256(str(number).encode()).digest()
    name = f"tcu-{number:04d}"
    return Sender(PeerRecord(-1, "acme", f"veh-{number:04d}", name, digest, digest, "[::1]:1", "mqtt", "edge-1", "1"))


def rejection(
    reason: str, count: int, first_at: int, last_at: int, ranges: list[tuple[int, int, int]]
) -> RejectionRecord:
    """As the edge gives it to the writer, which fills the peer in; each refusal scored 10."""
    return RejectionRecord(-1, reason, count, first_at, last_at, ranges, 10.0 * count, last_at)


def alter_identity(directory: Path, **changes: Any) -> Identity:
    """Writes the identity of a spool that nobody has open with these changes; as it was."""
    was = read_identity(directory)
    assert was is not None
    (directory / "identity").write_bytes(msgspec.structs.replace(was, **changes).packed())
    return was


class OpenSpool:
    """An opened spool; `leave` is what a kill does to it: nothing is flushed, the lock falls."""

    def __init__(self, directory: Path, clock: SetClock) -> None:
        self.directory = directory
        self.clock = clock
        self.home = Spool(directory, clock, os.urandom)
        self._left = False

    @property
    def writer(self) -> Writer:
        return self.home.writer

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self.home.close()

    close = leave

    def reopen(self) -> None:
        self.leave()
        self.home = Spool(self.directory, self.clock, os.urandom)
        self._left = False

    def write(self, count: int, *, first: int = 0, by: Sender | None = None) -> list[bytes]:
        """Appends that many messages (not committed); their bytes."""
        who = by or sender()
        raws = [f"message {first + index}".encode() * 3 for index in range(count)]
        for raw in raws:
            self.writer.message(who, self.clock.ms, 1, 0, raw)
        return raws

    def paths(self, suffix: str = ".seg") -> list[Path]:
        return [path for _, path in segment_paths(self.directory / "segments", suffix)]

    def segments(self) -> list[Segment]:
        """The sealed segments, read from the disk."""
        return [read_segment(path) for path in self.paths()]

    def messages(self) -> list[bytes]:
        return [message.raw for segment in self.segments() for message in segment.messages]
