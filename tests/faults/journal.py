"""What the fleet sent and what it was told, on disk before anything rests on it.

A message is written before its first byte goes out, each send before it is made, each answer before the car acts on
it: one append-only file, synced in groups over all cars. So what stands here is what really happened, whatever ended
whichever process, and the oracle (`oracle.py`) reads nothing else of the fleet's. Decides the form only.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

HONEST = "honest"
_LENGTH = struct.Struct("<I")


class Message(Struct, frozen=True, tag="message"):
    """Signed bytes. `kind` is `honest` or the reason that a hostile one deserves; `device_id` is who sends it."""

    number: int
    tenant: str
    device_id: str
    vehicle_id: str
    kind: str
    epoch: int
    seq: int
    raw: bytes

    @property
    def key(self) -> tuple[str, str, int, int]:
        return (self.tenant, self.device_id, self.epoch, self.seq)


class Send(Struct, frozen=True, tag="send"):
    """One more time that these bytes go out."""

    number: int
    message: int
    transport: str
    at_ms: int


class Answer(Struct, frozen=True, tag="answer"):
    """What the gate said to one send: `accepted`, `duplicate`, a reason, or `http_503` and the like."""

    send: int
    label: str
    at_ms: int


Entry = Message | Send | Answer


class Journal:
    """The file at `path`, for many threads: `write` returns when the entries are on disk."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        self._numbers = 0
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._pending: list[bytes] = []
        self._written = self._synced = 0

    def number(self) -> int:
        """A number for a message or a send, never given before."""
        with self._lock:
            self._numbers += 1
            return self._numbers

    def write(self, *entries: Entry) -> None:
        encoded = [msgspec.msgpack.encode(entry) for entry in entries]
        with self._lock:
            self._pending += [_LENGTH.pack(len(data)) + data for data in encoded]
            self._written += 1
            mine = self._written
        with self._syncing:
            if self._synced >= mine:
                return  # another thread's sync took it along
            with self._lock:
                data, self._pending, through = b"".join(self._pending), [], self._written
            assert os.write(self._descriptor, data) == len(data)
            os.fdatasync(self._descriptor)
            self._synced = through

    def close(self) -> None:
        os.close(self._descriptor)


def read(path: Path) -> Iterator[Entry]:
    """The entries in their order."""
    decode = msgspec.msgpack.Decoder(Entry).decode
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        yield decode(data[at : at + length])
        at += length
