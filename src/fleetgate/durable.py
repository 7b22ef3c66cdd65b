"""Files that outlive a crash: when each of these returns, what it did is on the disk.

Decides the order of syncs and renames. What is in a file, and who may read it, is its owner's. Each raises OSError.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def replace_durably(path: Path, data: bytes, synced: Callable[[], None] | None = None) -> None:
    """Writes a file so that a crash or a full disk leaves the old or the new one, never a mixture. `synced` is called
    in between."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)  # what it takes of a full disk, others need
        raise
    if synced is not None:
        synced()
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes a rename or a new name in `directory` durable."""
    _sync(directory, os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Makes what others have written into a file durable."""
    _sync(path, 0)


def _sync(path: Path, kind: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | kind)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
