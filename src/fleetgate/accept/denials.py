"""What this edge once was told to refuse, on its own disk.

A control database that was restored from an older day must not let anybody in who was denied before: a denial is
lifted only by a later change of that very device's records. The highest revision seen is kept too, so that an older
database is noticed and alarmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fleetgate.judge import Reason
from fleetgate.spool.database import Database

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
    """The file `denials.db` of a spool. Durable after each call; safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def revision(self) -> int:
        """The highest revision of control that this edge has seen; 0 at the beginning."""
        rows = self._database.rows("SELECT revision FROM seen")
        return int(rows[0][0]) if rows else 0

    def of(self, tenant: str, device_id: str) -> Denials:
        rows = self._database.rows(
            "SELECT key_digest, reason FROM denials WHERE tenant=? AND device_id=?", (tenant, device_id)
        )
        return {key_digest: Reason(reason) for key_digest, reason in rows}

    def learn(self, revision: int, changed: Mapping[tuple[str, str], Denials]) -> None:
        """Replaces the denials of the changed devices by these, and notes the revision."""
        with self._database.writing() as db:
            for (tenant, device_id), denials in changed.items():
                db.execute("DELETE FROM denials WHERE tenant=? AND device_id=?", (tenant, device_id))
                db.executemany(
                    "INSERT INTO denials VALUES (?, ?, ?, ?, ?)",
                    [(tenant, device_id, digest, reason.value, revision) for digest, reason in denials.items()],
                )
            db.execute("INSERT OR REPLACE INTO seen VALUES (1, ?)", (revision,))

    def close(self) -> None:
        self._database.close()
