"""What this edge once was told to refuse, on its own disk.

A control database that was restored from an older day must not let anybody in who was denied before: a denial is
lifted only by a later change of that very device's records. The highest revision seen is kept too, so that an older
database is noticed and alarmed.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from fleetgate.errors import SpoolError
from fleetgate.judge import Reason

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS denials (
    tenant TEXT NOT NULL, device_id TEXT NOT NULL, key_digest BLOB NOT NULL, reason TEXT NOT NULL,
    revision INTEGER NOT NULL, PRIMARY KEY (tenant, device_id, key_digest)) WITHOUT ROWID;
"""
WHOLE_DEVICE = b""
"""In place of a key digest: the denial is of the device, whatever credential it presents."""

Denials = dict[bytes, Reason]
"""The denials of one device, by key digest or WHOLE_DEVICE."""


class DenialMemory:
    """The file `denials.db` of a spool. Durable after each call; used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise SpoolError(f"cannot open {path}: {error}") from None

    def revision(self) -> int:
        rows = self._rows("SELECT revision FROM seen", ())
        return int(rows[0][0]) if rows else 0

    def of(self, tenant: str, device_id: str) -> Denials:
        rows = self._rows("SELECT key_digest, reason FROM denials WHERE tenant=? AND device_id=?", (tenant, device_id))
        return {key_digest: Reason(reason) for key_digest, reason in rows}

    def _rows(self, sql: str, values: tuple[str, ...]) -> list[Any]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise SpoolError(f"cannot read what was denied: {error}; the edge stops, mend the spool's disk") from None

    def learn(self, revision: int, changed: dict[tuple[str, str], Denials]) -> None:
        """Replaces the denials of the changed devices by what their records say now, and notes the revision."""
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            for (tenant, device_id), denials in changed.items():
                db.execute("DELETE FROM denials WHERE tenant=? AND device_id=?", (tenant, device_id))
                db.executemany(
                    "INSERT INTO denials VALUES (?, ?, ?, ?, ?)",
                    [(tenant, device_id, digest, reason.value, revision) for digest, reason in denials.items()],
                )
            db.execute("INSERT OR REPLACE INTO seen VALUES (1, ?)", (revision,))
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise SpoolError(f"cannot remember denials: {error}; the edge stops") from None

    def close(self) -> None:
        self._db.close()
