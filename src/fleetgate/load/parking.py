"""Where segments go that cannot be loaded, whole or in part: `parked/` in the spool, with the reason beside each.

Decides the form only. A parked segment keeps its name, and the edge never deletes it.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from fleetgate.load.counts import Counts
from fleetgate.spool.cursor import replace_durably


class Reason(Struct, frozen=True):
    """`why` is unreadable, damaged, changed or refused; `code` is ClickHouse's number of the error."""

    why: str
    error: str
    code: int | None
    parked_at_ms: int


class Parking:
    def __init__(self, directory: Path, counts: Counts) -> None:
        self._directory = directory
        self._counts = counts
        self._count()

    def park(self, path: Path, why: str, error: str, code: int | None, now_ms: int) -> None:
        """Keeps the segment at `path` under the same name, durably; once more changes nothing but the reason."""
        self._directory.mkdir(exist_ok=True)
        kept = self._directory / path.name
        if not kept.exists():
            try:
                os.link(path, kept)
            except OSError:  # another disk, or a file system without links
                replace_durably(kept, path.read_bytes())
        reason = Reason(why, error, code, now_ms)
        replace_durably(self._directory / f"{path.stem}.error.json", msgspec.json.format(msgspec.json.encode(reason)))
        self._count()

    def _count(self) -> None:
        self._counts.parked.set(len(list(self._directory.glob("*.seg"))))
