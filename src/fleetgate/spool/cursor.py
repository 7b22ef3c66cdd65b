"""The cursor: how far load has come. Written by load, read by the edge, which deletes behind it.

Replaced atomically and synced before the next segment is begun: persist first, delete later (the other order made a
well-known disk buffer crash in a loop).
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec
from msgspec import Struct

from fleetgate import fault
from fleetgate.durable import replace_durably
from fleetgate.errors import SpoolError

_REMEDY = "remove it to load all segments again, which changes nothing for those that are loaded"


class Cursor(Struct, frozen=True, forbid_unknown_fields=True):
    """The last segment that is safely in ClickHouse: the spool's identity (hex), its number, its SHA-256 (hex)."""

    spool: str
    segment: int
    sha256: str

    def checksum(self) -> int:
        return zlib.crc32(f"{self.spool} {self.segment} {self.sha256}".encode())


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in the file. With a checksum, because the edge deletes by this number."""

    spool: str
    segment: int
    sha256: str
    crc32: int


def read_cursor(spool_directory: Path) -> Cursor | None:
    """None before the first segment was loaded. Raises SpoolError when the file is no cursor or cannot be read."""
    path = spool_directory / "cursor.json"
    try:
        file = _decode(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SpoolError(f"{path} cannot be read ({error.strerror}): mend the spool's disk") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpoolError(f"{path} is not a cursor ({error}): {_REMEDY}") from None
    cursor = Cursor(file.spool, file.segment, file.sha256)
    if cursor.checksum() != file.crc32:
        raise SpoolError(f"{path} is damaged, its checksum is wrong: {_REMEDY}")
    return cursor


def write_cursor(spool_directory: Path, cursor: Cursor) -> None:
    """Durable when it returns. Raises SpoolError when the disk does not take it; then the former one stands."""
    file, path = _File(cursor.spool, cursor.segment, cursor.sha256, cursor.checksum()), spool_directory / "cursor.json"
    try:
        replace_durably(path, msgspec.json.encode(file), lambda: fault.point("cursor.synced"))
    except OSError as error:
        raise SpoolError(f"cannot write {path}: {error.strerror}; mend the spool's disk") from None


_decode = msgspec.json.Decoder(_File).decode
