"""What stands in a spool's directory, for people's commands: looked at without a lock while edge and load go on.

Decides how each file is found and read from outside. Opens nothing for writing; a file that goes while it is looked at
was loaded and deleted, which is no fault.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from fleetgate.errors import NotFound, SpoolError
from fleetgate.spool.reader import segment_paths

_BLOCK_BYTES = 4096  # a page and, on most disks, a sector: what a read of one byte takes along

State = Literal["live", "sealed", "parked"]


class SegmentFile(NamedTuple):
    number: int
    state: State
    path: Path

    def read(self) -> bytes | None:
        """What can be read of it; None when it was deleted meanwhile. A live segment may have been sealed meanwhile."""
        for path in (self.path, self.path.with_suffix(".seg")):
            try:
                return readable(path)
            except FileNotFoundError:
                continue
        return None


def readable(path: Path) -> bytes:
    """The bytes of a file, with zeros for the sectors that the disk does not give any more: so these cost the records
    they lie in, and not the whole file. Raises OSError for what is wrong with all of it."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        return b"".join(_block(file.fileno(), at, min(_BLOCK_BYTES, size - at)) for at in range(0, size, _BLOCK_BYTES))


def _block(descriptor: int, at: int, size: int) -> bytes:
    try:
        return os.pread(descriptor, size, at).ljust(size, b"\0")
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return bytes(size)


class ParkedFor(Struct, frozen=True):
    """What load writes beside a parked segment; `code` is ClickHouse's number of the error."""

    why: str = "unknown"
    error: str = "there is no reason beside it"
    code: int | None = None
    parked_at_ms: int | None = None


@contextmanager
def reaching(directory: Path) -> Iterator[None]:
    """Turns what the operating system says into an error for a person. It names a file where it was opened; in the
    middle of one it does not, and then it is the disk's trouble."""
    try:
        yield
    except OSError as error:
        where, remedy = "", "mend the spool's disk"
        if error.filename is not None:
            where, remedy = f"{error.filename}: ", "is this the spool's user?"
        raise SpoolError(f"cannot work in {directory}: {where}{error.strerror}; {remedy}") from None


def require_spool(directory: Path) -> None:
    """Raises NotFound where there is no spool at all."""
    if not (directory / "segments").is_dir() and not (directory / "identity").exists():
        raise NotFound(f"{directory} is no spool: is spool.directory right, and did an edge ever start here?")


def segment_files(directory: Path) -> list[SegmentFile]:
    """Live, sealed and parked segments, in the order of their numbers."""
    segments, parked = directory / "segments", directory / "parked"
    found = [SegmentFile(number, "live", path) for number, path in segment_paths(segments, ".open")]
    found += [SegmentFile(number, "sealed", path) for number, path in segment_paths(segments)]
    found += [SegmentFile(number, "parked", path) for number, path in segment_paths(parked)]
    return sorted(found)


def find_segment(directory: Path, number: int) -> SegmentFile:
    """The file of a segment, the parked one last. Raises NotFound."""
    require_spool(directory)
    named = [file for file in segment_files(directory) if file.number == number]
    if not named:
        raise NotFound(f"there is no segment {number} in {directory}: `fleetgate spool ls` lists what is there")
    order: tuple[State, ...] = ("sealed", "live", "parked")
    return min(named, key=lambda file: order.index(file.state))


def parked_for(path: Path) -> ParkedFor:
    """Why the segment at `path` in `parked/` is there."""
    try:
        return _decode(path.with_suffix(".error.json").read_bytes())
    except FileNotFoundError:
        return ParkedFor()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ParkedFor(error="the reason beside it cannot be read")


def checkpoint_position(directory: Path) -> int | None:
    """The number of the segment that checkpoint.db stands at; None without such a file.

    Raises SpoolError when SQLite cannot read it. Whether all of it is good, `contents` says.
    """
    path = directory / "checkpoint.db"
    if not path.exists():
        return None
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5)
        try:
            db.execute("PRAGMA query_only=ON")
            rows = db.execute("SELECT segment FROM position").fetchall()
        finally:
            db.close()
    except sqlite3.Error as error:
        raise SpoolError(f"cannot read {path}: {error}") from None
    return int(rows[0][0]) if rows else 0


_decode = msgspec.json.Decoder(ParkedFor).decode
