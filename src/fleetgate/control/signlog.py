"""The signer's own log: every head it signed, one JSON line each, every line naming the SHA-256 of the line before.

Decides when a signature may leave the process: after its line is on disk. Append-only; a last line without its end was
never answered and is cut at a start. Anything else that does not fit is an error: a signer that has forgotten what it
signed could be led back.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from fleetgate.control.heads import Hex32, SignedHead
from fleetgate.errors import ConfigError, Conflict

NO_LINE = "00" * 32
"""What the first line names as the one before it."""


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    previous: Hex32
    signed: SignedHead


_decode = msgspec.json.Decoder(Line).decode


def read_log(path: Path) -> Iterator[tuple[SignedHead, bytes]]:
    """The heads of the log with their lines, in order; a last line without its end is left out.

    Raises ConfigError where the log cannot be read or a line does not follow the one before.
    """
    previous = NO_LINE
    try:
        with path.open("rb") as file:
            for number, data in enumerate(file, 1):
                if not data.endswith(b"\n"):
                    return
                try:
                    line = _decode(data)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    raise ConfigError(f"{path}, line {number}: it is no line of a signer; restore the log") from None
                if line.previous != previous:
                    raise ConfigError(f"{path}, line {number}: it does not follow the line before; restore the log")
                previous = hashlib.sha256(data).hexdigest()
                yield line.signed, data
    except FileNotFoundError:
        raise ConfigError(f"{path} is gone: restore it from its backup; the signer must not forget it") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None


class SignLog:
    """Open for one signer: a lock on the file keeps a second one off. Has the newest head of each spool in memory."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where the log is not as it was written, Conflict where another signer has it."""
        self._newest: dict[str, SignedHead] = {}
        self._previous = NO_LINE
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"cannot open {path}: {error.strerror}; the signer must not forget it") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            raise Conflict(f"another signer has {path} open: only one may run") from None
        good_bytes = 0
        try:
            for signed, data in read_log(path):
                self._take(signed, data)
                good_bytes += len(data)
        except ConfigError:
            os.close(self._descriptor)
            raise
        if good_bytes != os.fstat(self._descriptor).st_size:
            os.ftruncate(self._descriptor, good_bytes)
            os.fsync(self._descriptor)

    def newest(self, spool: str) -> SignedHead | None:
        return self._newest.get(spool)

    def append(self, signed: SignedHead) -> None:
        """Durable when it returns. Raises OSError, after which the process must end: recovery decides."""
        data = msgspec.json.encode(Line(self._previous, signed)) + b"\n"
        if os.write(self._descriptor, data) != len(data):
            raise OSError("the signer's log was written in part")
        os.fsync(self._descriptor)
        self._take(signed, data)

    def close(self) -> None:
        os.close(self._descriptor)

    def _take(self, signed: SignedHead, data: bytes) -> None:
        self._newest[signed.head.spool] = signed
        self._previous = hashlib.sha256(data).hexdigest()
