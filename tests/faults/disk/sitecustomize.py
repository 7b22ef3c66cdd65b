"""Loaded by a process of the gate before anything else, where a trial fills its disk: at a fault point, wholly.

FILL_DISK="seal.begun,3,/path/to/ballast": the third time the process gets there, the file takes all that is free. What
the process writes next meets the end of the disk as it does in life, in the middle of a write too. It stays full until
the trial (`disks.py`) removes the file. Nothing is pretended: the file system is a small one and really full.
"""

import os

from fleetgate import fault


def _fill(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for size in (1 << 20, 1 << 12, 1):
        try:
            while True:
                os.write(descriptor, bytes(size))
        except OSError:
            continue
    os.close(descriptor)


class _Filling:
    def __init__(self, setting: str) -> None:
        self._point, passes, self._path = setting.split(",", 2)
        self._left = int(passes)
        self._go_on = fault.point

    def point(self, name: str) -> None:
        if name == self._point:
            self._left -= 1
            if self._left == 0:
                _fill(self._path)
        self._go_on(name)


_setting = os.environ.get("FILL_DISK")
if _setting is not None:
    fault.point = _Filling(_setting).point
