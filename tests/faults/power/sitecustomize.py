"""Loaded by a process of the gate before anything else, where a trial breaks its disk: notes what it syncs, or fails.

Each fsync and fdatasync of Python's is noted once it has returned, in the file that SYNC_LOG names: of a file its
inode and size, of a directory its names and their inodes. The trial (`power_cuts.py`) kills the process and takes away
everything else, as a disk may when the power goes. SQLite syncs by itself and is not seen here.

SYNC_FAILS="7,shown" makes the seventh fdatasync fail with EIO, "7,gone" too. As with Linux's file systems, the next one
would succeed, and what the failed one did not write is either still shown, until the power goes, or reads as zeros.
"""

import errno
import json
import os
from collections.abc import Callable
from stat import S_ISDIR


def _note(log: int, descriptor: int) -> None:
    status = os.fstat(descriptor)
    fact: dict[str, object] = {"inode": status.st_ino, "size": status.st_size}
    if S_ISDIR(status.st_mode):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        fact = {"directory": path, "names": {entry.name: entry.inode() for entry in os.scandir(path)}}
    os.write(log, json.dumps(fact).encode() + b"\n")


def _noting(sync: Callable[[int], None], log: int) -> Callable[[int], None]:
    def noted(descriptor: int) -> None:
        sync(descriptor)
        _note(log, descriptor)

    return noted


class _Failing:
    def __init__(self, setting: str, sync: Callable[[int], None], log: int) -> None:
        passes, self._then = setting.split(",")
        self._left = int(passes)
        self._sync = sync
        self._log = log
        self._synced: dict[int, int] = {}

    def fdatasync(self, descriptor: int) -> None:
        self._left -= 1
        status = os.fstat(descriptor)
        if self._left == 0:
            os.write(self._log, json.dumps({"inode": status.st_ino, "failed": status.st_size}).encode() + b"\n")
            if self._then == "gone":
                os.ftruncate(descriptor, self._synced.get(status.st_ino, 0))
                os.ftruncate(descriptor, status.st_size)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._sync(descriptor)
        self._synced[status.st_ino] = status.st_size


_path = os.environ.get("SYNC_LOG")
if _path is not None:
    _log = os.open(_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.fsync = _noting(os.fsync, _log)  # type: ignore[assignment]
    os.fdatasync = _noting(os.fdatasync, _log)  # type: ignore[assignment]
    _setting = os.environ.get("SYNC_FAILS")
    if _setting is not None:
        os.fdatasync = _Failing(_setting, os.fdatasync, _log).fdatasync  # type: ignore[assignment]

if "LATE_COMMITS_SECONDS" in os.environ:
    import trio

    async def _late() -> None:
        await trio.sleep(float(os.environ["LATE_COMMITS_SECONDS"]))

    trio.lowlevel.checkpoint = _late  # of our code, only the intake calls it by this name
