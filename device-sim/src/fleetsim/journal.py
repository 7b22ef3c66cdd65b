"""Decides what survives on the device: its last epoch and its signed messages, in one SQLite file for many devices.

Writes are collected and committed together, with one fsync for all devices of a tick; `durable` says how far the
disk has come. When to commit is the driver's. Nothing is bounded here because `core` bounds what it keeps.
"""

import sqlite3
import threading
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS device (name TEXT PRIMARY KEY, epoch INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    name TEXT NOT NULL, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, envelope BLOB NOT NULL,
    PRIMARY KEY (name, epoch, seq)
) WITHOUT ROWID;
"""
_OPEN = "INSERT INTO device VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET epoch = excluded.epoch"
_KEEP = "INSERT INTO outbox VALUES (?, ?, ?, ?)"
_FORGET = "DELETE FROM outbox WHERE name = ? AND epoch = ? AND seq = ?"

_Write = tuple[str, tuple[str | int | bytes, ...]]


class JournalError(Exception):
    """The journal cannot be opened; the text names the file."""


class Journal:
    """The store of many devices. `commit` may run in another thread than the rest; the rest belongs to one."""

    def __init__(self, path: Path) -> None:
        self.durable = 0
        self._lock = threading.Lock()
        self._pending: list[_Write] = []
        self._ticket = 1  # what is written now is durable when `durable` is this
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a commit in WAL mode is an fsync only so
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"{path}: {error}; choose another --state directory") from None

    def load(self, device: str) -> tuple[int, list[tuple[int, int, bytes]]]:
        """The last epoch (0 for none) and the kept messages in the order of (epoch, seq)."""
        row = self._db.execute("SELECT epoch FROM device WHERE name = ?", (device,)).fetchone()
        kept = self._db.execute(
            "SELECT epoch, seq, envelope FROM outbox WHERE name = ? ORDER BY epoch, seq", (device,)
        ).fetchall()
        return (row[0] if row else 0), kept

    def open_epoch(self, device: str, epoch: int) -> int:
        """Remember an epoch; it may be signed with once the returned ticket is durable."""
        return self._write(_OPEN, (device, epoch))

    def keep(self, device: str, epoch: int, seq: int, raw: bytes) -> int:
        """Keep signed bytes; they may be sent once the returned ticket is durable."""
        return self._write(_KEEP, (device, epoch, seq, raw))

    def forget(self, device: str, epoch: int, seq: int) -> None:
        """Drop a message; if this is lost in a crash, the gate answers the repetition as a duplicate."""
        self._write(_FORGET, (device, epoch, seq))

    def commit(self) -> None:
        """Bring everything written so far to the disk, in one transaction. Raises sqlite3.Error."""
        with self._lock:
            writes, self._pending = self._pending, []
            ticket = self._ticket
            self._ticket += 1
        if writes:
            self._db.execute("BEGIN")
            for statement, values in writes:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")
        self.durable = ticket

    def close(self) -> None:
        """Commit and close."""
        self.commit()
        self._db.close()

    def _write(self, statement: str, values: tuple[str | int | bytes, ...]) -> int:
        with self._lock:
            self._pending.append((statement, values))
            return self._ticket
