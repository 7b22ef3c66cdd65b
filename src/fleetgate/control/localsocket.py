"""Sockets in the file system: how one is made and reached, whoever speaks what on it.

Decides that a path may be longer than a socket's address, and that a socket which a killed process left is taken over.
Who may connect is the mode's, and its directory's; what is said is decided by `signing` and `renewalform`.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetgate.errors import ConfigError

BACKLOG = 64  # beyond it a client that waits for nothing gets EAGAIN


def listen(setting: str, path: Path, mode: int) -> socket.socket:
    """A listening socket at `path`. Call it before there are threads: it sets the process's umask for a moment.

    Raises ConfigError, naming the setting.
    """
    if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigError(f"{setting}: {path} exists and is no socket")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    before = os.umask(0o777 & ~mode)
    try:
        path.unlink(missing_ok=True)  # of a process that was killed: a lock of the caller's says that none runs
        with short_name(path) as name:
            listener.bind(name)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(f"{setting}: cannot listen at {path}: {error.strerror or error}") from None
    finally:
        os.umask(before)
    return listener


@contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name for `path`, to bind or connect, that fits into a socket's address, which has 107 bytes. Raises OSError."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
