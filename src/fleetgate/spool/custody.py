"""How a repair holds a spool and writes in it: durably, for the spool's own user, and so that nothing is ever gone.

Decides where things go that are replaced. What is replaced, and by what, is decided by `repair`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fleetgate.durable import replace_durably, sync_directory
from fleetgate.errors import SpoolError
from fleetgate.lock import Taken, hold
from fleetgate.spool.files import require_spool


class Step(NamedTuple):
    """One thing that is wrong, what is done about it, and `act`, which does it durably."""

    finding: str
    remedy: str
    act: Callable[[], None]


class Custody:
    """The right to change the spool at `directory`, for as long as `held` gives it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.parked = directory / "parked"

    def write(self, path: Path, data: bytes) -> None:
        """Its owner's before it has its name, or a killed repair would leave what an edge cannot read."""
        replace_durably(path, data, lambda: self.own(path.with_name(path.name + ".new")))

    def own(self, path: Path) -> None:
        """Files belong to whom the spool belongs, whoever repairs it."""
        owner = self.directory.stat()
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)

    def keep(self, name: str, data: bytes) -> None:
        """A copy of something damaged, as `parked/<name>.damaged`; with a number where there is another one already."""
        for kept in self._names(name):
            if not kept.exists():
                self.write(kept, data)
                return
            if kept.read_bytes() == data:
                return

    def set_aside(self, path: Path) -> None:
        """The file itself, of any size, under such a name."""
        kept = next(kept for kept in self._names(path.name) if not kept.exists())
        path.rename(kept)
        sync_directory(self.parked)
        sync_directory(path.parent)

    def set_database_aside(self, path: Path) -> None:
        """The files of SQLite: the log too, in which the newest of it may stand."""
        for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if name.exists():
                self.set_aside(name)

    def _names(self, name: str) -> Iterator[Path]:
        for attempt in itertools.count(1):
            yield self.parked / f"{name}{f'.{attempt}' if attempt > 1 else ''}.damaged"


@contextmanager
def held(directory: Path) -> Iterator[Custody]:
    """Holds the spool as an edge would. Raises SpoolError while an edge does, NotFound where there is no spool."""
    require_spool(directory)
    try:
        lock = hold(directory / "lock")
    except Taken:
        raise SpoolError(f"an edge holds {directory}: stop it first; nothing was changed") from None
    try:
        custody = Custody(directory)
        custody.own(directory / "lock")
        custody.parked.mkdir(mode=0o750, exist_ok=True)
        custody.own(custody.parked)
        yield custody
    finally:
        os.close(lock)
