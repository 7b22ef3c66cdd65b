"""Locks between processes, on a file or a directory: they end with their process, however that ends.

Decides how one is taken. What it keeps others from, and what a person is told who meets one, is its owner's.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Taken(Exception):
    """Another process holds it."""


def hold(path: Path, flags: int = os.O_RDWR | os.O_CREAT, mode: int = 0o640) -> int:
    """A descriptor of what is at `path`; the lock is held until it is closed. Raises Taken, OSError."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Taken(str(path)) from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
