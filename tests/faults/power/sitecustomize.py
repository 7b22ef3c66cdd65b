"""Loaded by a process of the gate before anything else, where a trial cuts its power: writes down what it syncs.

Each fsync and fdatasync of Python's is noted once it has returned, in the file that SYNC_LOG names: of a file its
inode and size, of a directory its names and their inodes. The trial (`power_cuts.py`) kills the process and takes away
everything else, as a disk may when the power goes. SQLite syncs by itself and is not seen here.
"""

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


_path = os.environ.get("SYNC_LOG")
if _path is not None:
    _log = os.open(_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.fsync = _noting(os.fsync, _log)  # type: ignore[assignment]
    os.fdatasync = _noting(os.fdatasync, _log)  # type: ignore[assignment]
