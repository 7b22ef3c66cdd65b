"""The cursor: how far load has come. Written by load, read by the edge, which deletes behind it.

Replaced atomically and synced before the next segment is begun: persist first, delete later (the other order made a
well-known disk buffer crash in a loop).
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from fleetgate.errors import SpoolError


class Cursor(Struct, frozen=True, forbid_unknown_fields=True):
    """The last segment that is safely in ClickHouse: the spool's identity (hex), its number, its SHA-256 (hex)."""

    spool: str
    segment: int
    sha256: str


def read_cursor(spool_directory: Path) -> Cursor | None:
    """None before the first segment was loaded. Raises SpoolError when the file is not a cursor."""
    path = spool_directory / "cursor.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cursor)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SpoolError(
            f"{path} is not a cursor ({error}): restore it, or remove it to load all segments again"
        ) from None


def write_cursor(spool_directory: Path, cursor: Cursor) -> None:
    """Durable when it returns."""
    replace_durably(spool_directory / "cursor.json", msgspec.json.encode(cursor))


def replace_durably(path: Path, data: bytes) -> None:
    """Writes a small file so that a crash leaves the old or the new one, never a mixture."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes a rename or a new name in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
