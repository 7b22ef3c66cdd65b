"""The signer's own log: every head it signed, of segments and of the audit, one JSON line each, every line naming the
SHA-256 of the line before.

Decides when a signature may leave the process: after its line is on disk, and after a second file, the count, says how
many lines there are and the SHA-256 of the last. So a log that was emptied or cut is noticed at the next start. A last
line in the middle of which the process ended was never answered and is cut then; a whole one that only lacks its end
is kept. Anything else that does not fit is an error: a signer that has forgotten what it signed could be led back.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from fleetgate import fault
from fleetgate.control.heads import Hex32, SignedAuditHead, SignedHead
from fleetgate.control.secretfile import replace_secret
from fleetgate.errors import ConfigError, Conflict
from fleetgate.lock import Taken, hold

NO_LINE = "00" * 32
"""What the first line names as the one before it."""


class Line(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`signed` is a head of segments, `audit` one of the audit: a line has one of them."""

    previous: Hex32
    signed: SignedHead | None = None
    audit: SignedAuditHead | None = None

    def __post_init__(self) -> None:
        if (self.signed is None) == (self.audit is None):
            raise ValueError("a line has one head")


class LogCut(ConfigError):
    """The log lacks lines that were signed, or has others in their place."""


class Count(Struct, frozen=True, forbid_unknown_fields=True):
    """How many lines the log has at least, and the SHA-256 of the last of these."""

    lines: int
    last: Hex32


EMPTY = msgspec.json.encode(Count(0, NO_LINE))


def count_of(key: Path) -> Path:
    """The count stands beside the audit key, not beside the log: so they are not lost by one mistake."""
    return key.with_suffix(".signed")


def has_signed(count: Path) -> bool:
    """Whether the count says that something was signed, or something that nobody can read; not so where it is absent,
    or is a first one of which a crash left a part. Raises ConfigError where it cannot be read."""
    try:
        return not EMPTY.startswith(count.read_bytes())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"cannot read {count}: {error.strerror}") from None


_decode = msgspec.json.Decoder(Line).decode


def read_log(path: Path, counted: Count | None = None) -> Iterator[tuple[Line, bytes]]:
    """The lines of the log, read and as they stand, in order; a last line that breaks off is left out, one that only
    lacks its end is given with it. `counted` was read before the log is: a signer that runs writes a line first.

    Raises ConfigError where the log cannot be read or a line does not follow the one before; at the end LogCut where
    it has not what was counted.
    """
    previous, lines, at_count = NO_LINE, 0, NO_LINE
    try:
        with path.open("rb") as file:
            for number, data in enumerate(file, 1):
                whole = data.endswith(b"\n")
                try:
                    line = _decode(data)
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    if not whole:
                        return
                    raise ConfigError(f"{path}, line {number}: it is no line of a signer; restore the log") from None
                if line.previous != previous:
                    raise ConfigError(f"{path}, line {number}: it does not follow the line before; restore the log")
                data = data if whole else data + b"\n"
                previous = hashlib.sha256(data).hexdigest()
                lines += 1
                if counted is not None and lines == counted.lines:
                    at_count = previous
                yield line, data
    except FileNotFoundError:
        raise ConfigError(f"{path} is gone: restore it from its backup; the signer must not forget it") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if counted is not None and at_count != counted.last:
        raise LogCut(f"{path} has {lines} lines, and {counted.lines} were signed, or other ones")


def or_anew(log: Path, count: Path) -> str:
    """What to do without a backup, behind the advice to restore it."""
    return (
        f"or without a backup begin anew: keep {log} and {count.with_suffix('.*')}, moved away together "
        '(docs/how-to/prove-a-message.md, "A signer that lost its log or key")'
    )


class SignLog:
    """Open for one signer: a lock on the file keeps a second one off. Has the newest head of each chain in memory."""

    def __init__(self, path: Path, count: Path) -> None:
        """Raises ConfigError where the log is not as it was written, Conflict where another signer has it,
        OSError where its count cannot be written."""
        self._newest: dict[str, SignedHead] = {}
        self._newest_audit: dict[str | None, SignedAuditHead] = {}  # of no chain in particular: what was signed last
        self._previous = NO_LINE
        self._lines = 0
        self._count = count
        try:
            self._descriptor = hold(path, os.O_WRONLY | os.O_APPEND)
        except Taken:
            raise Conflict(f"another signer has {path} open: only one may run") from None
        except OSError as error:
            why = f"cannot open {path}: {error.strerror}; the signer must not forget it: restore it from its backup"
            raise ConfigError(f"{why}, {or_anew(path, count)}") from None
        try:
            self._open(path)
        except ConfigError as error:
            os.close(self._descriptor)
            raise ConfigError(f"{error}, {or_anew(path, count)}") from None
        except OSError:
            os.close(self._descriptor)
            raise

    def _open(self, path: Path) -> None:
        counted = read_count(self._count)
        good_bytes, at_count = 0, NO_LINE
        for line, data in read_log(path):
            self._take(line, data)
            good_bytes += len(data)
            if self._lines == counted.lines:
                at_count = self._previous
        # One line more: the process ended between the line and its count.
        if self._lines not in (counted.lines, counted.lines + 1) or at_count != counted.last:
            raise ConfigError(
                f"{path} has {self._lines} lines, and {self._count} says that {counted.lines} were signed, or other "
                "ones: restore both from one backup; the signer must not forget what it signed"
            )
        size = os.fstat(self._descriptor).st_size
        if size == good_bytes - 1:
            os.write(self._descriptor, b"\n")
        elif size != good_bytes:
            os.ftruncate(self._descriptor, good_bytes)
        os.fsync(self._descriptor)
        self._note_count()

    def newest(self, spool: str) -> SignedHead | None:
        return self._newest.get(spool)

    def newest_audit(self, chain: str | None) -> SignedAuditHead | None:
        """Of the chain that was signed last where none is named."""
        return self._newest_audit.get(chain)

    def append(self, signed: SignedHead) -> None:
        """Durable when it returns. Raises OSError, after which the process must end: recovery decides."""
        self._append(Line(self._previous, signed=signed))

    def append_audit(self, signed: SignedAuditHead) -> None:
        """The same."""
        self._append(Line(self._previous, audit=signed))

    def _append(self, line: Line) -> None:
        data = msgspec.json.encode(line) + b"\n"
        if os.write(self._descriptor, data) != len(data):
            raise OSError("the signer's log was written in part")
        os.fsync(self._descriptor)
        fault.point("sign.logged")
        self._take(line, data)
        self._note_count()
        fault.point("sign.counted")

    def close(self) -> None:
        os.close(self._descriptor)

    def _take(self, line: Line, data: bytes) -> None:
        if line.signed is not None:
            self._newest[line.signed.head.spool] = line.signed
        if line.audit is not None:
            self._newest_audit[line.audit.head.chain] = self._newest_audit[None] = line.audit
        self._previous = hashlib.sha256(data).hexdigest()
        self._lines += 1

    def _note_count(self) -> None:
        replace_secret(self._count, msgspec.json.encode(Count(self._lines, self._previous)))


def read_count(path: Path) -> Count:
    """Raises ConfigError."""
    try:
        return _decode_count(path.read_bytes())
    except OSError as error:
        what = f"cannot read {path}: {error.strerror}"
    except (msgspec.MsgspecError, UnicodeDecodeError):
        what = f"{path} is not the count of a signer's log"
    raise ConfigError(f"{what}; restore it from its backup: without it a log that was cut is not noticed")


_decode_count = msgspec.json.Decoder(Count).decode
