"""A spool as an edge writes it, for the tests of load: the edge's own writer, on a real disk.

Messages are unsigned here: load holds no keys and checks no tag; that is the judge's work, done before the spool.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from pathlib import Path
from typing import Any

import msgspec

from fleetgate.clock import SystemClock
from fleetgate.durable import replace_durably
from fleetgate.spool import format as fmt
from fleetgate.spool.format import PeerRecord, TransitionRecord
from fleetgate.spool.identity import Identity
from fleetgate.spool.reader import Segment, read_segment
from fleetgate.spool.writer import Sender, Writer

DAY_MS = 24 * 3600 * 1000
SENT_AT = int(time.time()) // 86_400 * DAY_MS - 2 * DAY_MS + DAY_MS // 2
"""Noon, two days ago: young enough that raw_messages keeps it, and whole days away from midnight."""
RECEIVED_AT = SENT_AT + 2_000

pack = msgspec.msgpack.Encoder().encode


def rows_body(*events: list[Any], software: str = "2026.44.1", config: str = "cfg-7f3a") -> bytes:
    """A body of `enc` 1; an event is [at, kind, signals, texts]."""
    return pack([software, config, list(events)])


def sample(at: int, **signals: float) -> list[Any]:
    """A sample at `at` ms; signals as s1=88.25, by their number in the catalogue."""
    return [at, "sample", {int(name[1:]): value for name, value in signals.items()}, {}]


def peer(vehicle: str = "veh-0001", tenant: str = "acme") -> PeerRecord:
    digest = hashlib.sha256(f"{tenant}/{vehicle}".encode()).digest()
    return PeerRecord(0, tenant, vehicle, f"{vehicle}-tcu", digest, digest[::-1], "192.0.2.7", "mqtt", "edge-1", "p-1")


class SpoolOnDisk:
    """A spool directory with an edge's writer; `seal` gives the path of the segment."""

    def __init__(self, directory: Path, name: str = "spool") -> None:
        self.directory = directory
        self.identity = hashlib.sha256(name.encode()).digest()[:16]
        (directory / "segments").mkdir(parents=True)
        identity = Identity(self.identity.hex(), SENT_AT)
        replace_durably(directory / "identity", identity.packed())
        self.writer = Writer(directory, self.identity, 1, SystemClock(), os.urandom)
        self._seq = 0
        self._senders: dict[PeerRecord, Sender] = {}

    def message(
        self,
        body: bytes,
        *,
        sender: PeerRecord | None = None,
        enc: int = 1,
        outcome: int = 1,
        flags: int = 0,
        received_at: int = RECEIVED_AT,
    ) -> bytes:
        """Appends a message and returns its envelope."""
        raw = pack([1, 1, 3, self._seq, SENT_AT, enc, body, bytes(16)])
        self._seq += 1
        self.writer.message(self.sender(sender or peer()), received_at, outcome, flags, raw)
        return raw

    def sender(self, record: PeerRecord) -> Sender:
        return self._senders.setdefault(record, Sender(record))

    def transition(self, device_id: str = "veh-0001-tcu") -> None:
        self.writer.transition(
            TransitionRecord("acme", device_id, "trusted", "quarantined", RECEIVED_AT, "bad_mac", 120.0, "p-1")
        )

    def live_bytes(self) -> bytes:
        """Those of the live segment, committed."""
        self.writer.commit()
        return (self.directory / "segments" / f"{self.writer.next_segment - 1:020d}.open").read_bytes()

    def seal(self) -> Path:
        number = self.writer.seal()
        assert number is not None
        return self.directory / "segments" / f"{number:020d}.seg"

    def segment(self) -> Segment:
        return read_segment(self.seal())


def of_version_1(data: bytes) -> bytes:
    """A sealed segment as an earlier fleetgate wrote it: with another magic, and checksums without a seed."""
    view, header = memoryview(data), fmt.unpack_header(data)
    pieces = [fmt.pack_header(msgspec.structs.replace(header, seed=0))]
    at = fmt.HEADER_BYTES
    while at < len(data) - fmt.TRAILER_BYTES:
        end = fmt.unchecked_record(view, at)[3]
        pieces += [zlib.crc32(data[at + 4 : end]).to_bytes(4, "little"), data[at + 4 : end]]
        at = end
    return b"".join([*pieces, data[at:]])
