"""Which segments a spool should have, and whether a file is the segment that its name says.

Decides what `verify` finds out of place and what `repair` puts in its place again.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from pathlib import Path

from fleetgate.spool import format as fmt
from fleetgate.spool.cursor import Cursor
from fleetgate.spool.files import SegmentFile, parked_for
from fleetgate.spool.identity import Identity


def header_of(path: Path) -> fmt.Header | None:
    """None for a file that is gone or whose header is damaged, or cannot be read any more. Raises OSError."""
    try:
        with path.open("rb") as opened:
            return fmt.unpack_header(opened.read(fmt.HEADER_BYTES))
    except (FileNotFoundError, fmt.DamagedError):
        return None
    except OSError as error:
        if error.errno == errno.EIO:
            return None
        raise


def altered(identity: Identity, files: Iterable[SegmentFile], cursor: Cursor | None) -> str:
    """What is wrong with an identity that neither a segment nor the cursor bears; nothing in most cases."""
    bears = {header.spool for file in files if (header := header_of(file.path)) is not None}
    if not bears or not bears.isdisjoint(identity.all()) or (cursor is not None and cursor.spool == identity.spool):
        return ""
    return f"the identity is {identity.spool}, and no segment is of that spool"


def borne_by(files: Iterable[SegmentFile]) -> Identity | None:
    """The identity that these files bear, as far as they tell it: that of the last of them, and of others as former.

    Those in `parked/` come last, without what load set aside there as another spool's.
    """
    headers = {file: header for file in files if (header := header_of(file.path)) is not None}
    for file in [file for file in headers if file.state == "parked" and parked_for(file.path).why == "misplaced"]:
        del headers[file]
    if not headers:
        return None
    newest = headers[max(headers, key=lambda file: (file.state != "parked", file.number))].spool.hex()
    former = sorted({header.spool.hex() for header in headers.values()} - {newest})
    return Identity(newest, min(header.opened_at for header in headers.values()), former)


def misplaced(file: SegmentFile, header: fmt.Header, identity: Identity) -> str:
    """What is wrong with where it lies; nothing in most cases."""
    if header.spool not in identity.all():
        return (
            f"{file.path} belongs to another spool, {header.spool.hex()}, where it is segment {header.segment}, or the "
            "identity was altered"
        )
    if header.segment != file.number:
        return f"{file.path} says in its header that it is segment {header.segment}: it was renamed or copied"
    # In this order: an edge that seals meanwhile takes the live name away before there is the sealed one.
    if file.state == "live" and file.path.with_suffix(".seg").exists() and file.path.exists():
        return f"{file.path} stands beside the sealed segment of its number: it is a copy from before that was sealed"
    return ""


def missing(numbers: Collection[int], checkpointed: int, loaded: int | None, known: int = 0) -> list[tuple[int, int]]:
    """The ranges of segments that should be there and are not.

    What lies behind both the checkpoint and the cursor was deleted; without a cursor of its own (`loaded` is None) the
    spool does not say how far that goes. `known` was given too, as something else says.
    """
    first = min(checkpointed, loaded) + 1 if loaded is not None else min([*numbers, checkpointed + 1])
    return holes(numbers, first, max([*numbers, checkpointed, loaded or 0, known]))


def holes(numbers: Collection[int], first: int, last: int) -> list[tuple[int, int]]:
    """The ranges between `first` and `last` (or the lowest number, if that is less) that are not in `numbers`."""
    found = []
    expected = min(first, min(numbers, default=first))
    for number in [*sorted(numbers), last + 1]:
        if number > expected:
            found.append((expected, number - 1))
        expected = max(expected, number + 1)
    return found
