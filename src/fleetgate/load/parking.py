"""Where segments go that cannot be loaded, whole or in part: `parked/` in the spool, with the reason beside each.

Decides the form only. A parked segment keeps its name, and the edge never deletes it: it goes when a person had it
tried again (`fleetgate spool retry`) and ClickHouse has all of it.
"""

from __future__ import annotations

import filecmp
import hashlib
import itertools
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from fleetgate import fault
from fleetgate.durable import replace_durably, sync_directory
from fleetgate.load.counts import Counts
from fleetgate.spool.requests import withdraw

REFUSED_IN_PART = "refused in part"
"""Everything of the segment is loaded but the rows that the error names."""


class Reason(Struct, frozen=True):
    """`why` is unreadable, damaged, misplaced, changed, refused or refused in part; `code` is ClickHouse's number
    of the error."""

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
        # The same file is not read: perhaps it cannot be.
        if kept.exists() and not kept.samefile(path) and not filecmp.cmp(kept, path, shallow=False):
            kept.rename(self._free(path.name))  # of a spool that was here before, which numbered from 1 too
        if not kept.exists():
            try:
                os.link(path, kept)
            except OSError:  # another disk, or a file system without links
                replace_durably(kept, path.read_bytes())
        fault.point("park.kept")
        reason = Reason(why, error, code, now_ms)
        replace_durably(self._directory / f"{path.stem}.error.json", msgspec.json.format(msgspec.json.encode(reason)))
        self._count()

    def _free(self, name: str) -> Path:
        names = (self._directory / f"{name}.{count}.damaged" for count in itertools.count(1))
        return next(kept for kept in names if not kept.exists())

    def release(self, path: Path) -> None:
        """Lets go of the parked segment at `path`, of which ClickHouse has every record now; its request goes last."""
        path.with_suffix(".error.json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        sync_directory(self._directory)
        withdraw(path)
        self._count()

    def before_repair(self, path: Path) -> set[str]:
        """The SHA-256 (hex) of what a repair replaced by the segment at `path`: parts of it may be inserted already."""
        if not (self._directory / f"{path.stem}.damaged").exists():
            return set()
        kept = self._directory.glob(f"{path.stem}*.damaged")
        return {hashlib.sha256(file.read_bytes()).hexdigest() for file in kept}

    def _count(self) -> None:
        self._counts.parked.set(len(list(self._directory.glob("*.seg"))))
