"""Files that hold key material: written so that only their owner reads them, and refused when anybody else could.

Decides ownership and mode; what is in the file is the caller's. Error texts name the file, never its content.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fleetgate.durable import sync_directory
from fleetgate.errors import ConfigError, Conflict

MAX_BYTES = 1024 * 1024  # a keyring of thousands of roots; anything larger is the wrong file


CA_INIT = "`fleetgate ca init` makes it"


def read_secret(path: Path, remedy: str = CA_INIT) -> bytes:
    """The content of a file that nobody but this process's user may read; `remedy` is told where there is none.

    Raises ConfigError for a file that is absent, belongs to somebody else, is open to group or others, is no regular
    file, or is reached by a symbolic link that neither this user nor root made (who owns the link chooses the key).
    """
    try:
        link = path.lstat()
        if stat.S_ISLNK(link.st_mode) and link.st_uid not in (os.geteuid(), 0):
            raise ConfigError(f"{path} is a symbolic link of another user: replace it by the file itself")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            _check(path, os.fstat(descriptor))
            return file.read(MAX_BYTES)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: {remedy}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


def write_secret(path: Path, content: bytes) -> None:
    """Writes a new file of mode 0600, synced. Raises Conflict where it exists, ConfigError where it cannot be."""
    write_new(path, content, 0o600)


def write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Writes a new file, durable with its name; never over an old one: what is there may be the only copy of a key."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask took away; it never adds
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        sync_directory(path.parent)
    except FileExistsError:
        raise Conflict(f"{path} exists already and is left as it is: move it away first, if it is not needed") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None


def replace_secret(path: Path, content: bytes) -> None:
    """Writes a file of mode 0600, or of the mode, owner and group of the one that it takes the place of; a crash leaves
    one of the two, whole. Behind a link it is the file itself that is replaced. Raises OSError."""
    path = path.resolve()
    former = path.stat() if path.exists() else None
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)  # of a crash
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        if former is not None:
            made = os.fstat(descriptor)
            if (made.st_uid, made.st_gid) != (former.st_uid, former.st_gid):
                os.fchown(descriptor, former.st_uid, former.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(former.st_mode))
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    sync_directory(path.parent)


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(f"{path} is not a regular file")
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user: `chown` it to the user that runs this process")
    if found.st_mode & 0o077:
        raise ConfigError(f"{path} is open to other users (mode {found.st_mode & 0o777:04o}): run `chmod 600 {path}`")
    if found.st_size > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes: it is not the file that is meant")
