"""The checkpoint: replay windows, states and scores of devices as of the end of one segment.

A cache of the spool that lets old segments be deleted and starts be quick: on start the segments behind it are
applied to it. Devices are read when they are first needed, so a million known devices cost nothing. SQLite, because
"all changed devices and the position, or none of it" is exactly a transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from fleetgate.spool.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), segment INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS devices (
    tenant TEXT NOT NULL, device_id TEXT NOT NULL, epoch INTEGER NOT NULL, state TEXT NOT NULL,
    state_at INTEGER NOT NULL, score REAL NOT NULL, scored_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, device_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS windows (
    tenant TEXT NOT NULL, device_id TEXT NOT NULL, key_digest BLOB NOT NULL, epoch INTEGER NOT NULL,
    highest INTEGER NOT NULL, newest_sent_at INTEGER NOT NULL, slots BLOB NOT NULL,
    PRIMARY KEY (tenant, device_id, key_digest, epoch));
"""


class WindowState(Struct, frozen=True):
    """`slots` is the ring of a window, 8,192 bytes; `newest_sent_at` Unix ms."""

    key_digest: bytes
    epoch: int
    highest: int
    newest_sent_at: int
    slots: bytes


class DeviceState(Struct, frozen=True):
    """What the edge knows of a device beyond the records of control; times are Unix ms."""

    tenant: str
    device_id: str
    epoch: int
    state: str
    state_at: int
    score: float
    scored_at: int
    windows: list[WindowState]


class Checkpoint:
    """The file `checkpoint.db` of a spool. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def segment(self) -> int:
        """The number of the last segment whose records are all in here; 0 at the beginning."""
        rows = self._database.rows("SELECT segment FROM position")
        return int(rows[0][0]) if rows else 0

    def device(self, tenant: str, device_id: str) -> DeviceState | None:
        key = (tenant, device_id)
        with self._database.reading() as db:
            row = db.execute(
                "SELECT epoch, state, state_at, score, scored_at FROM devices WHERE tenant=? AND device_id=?", key
            ).fetchone()
            if row is None:
                return None
            windows = db.execute(
                "SELECT key_digest, epoch, highest, newest_sent_at, slots FROM windows WHERE tenant=? AND device_id=?",
                key,
            ).fetchall()
        epoch, state, state_at, score, scored_at = row
        kept = [WindowState(*window) for window in windows]
        return DeviceState(tenant, device_id, epoch, state, state_at, score, scored_at, kept)

    def write(self, segment: int, changed: Iterable[DeviceState]) -> None:
        """Durable when it returns: the changed devices, replaced whole, and the position."""
        with self._database.writing() as db:
            for device in changed:
                key = (device.tenant, device.device_id)
                db.execute(
                    "INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*key, device.epoch, device.state, device.state_at, device.score, device.scored_at),
                )
                db.execute("DELETE FROM windows WHERE tenant=? AND device_id=?", key)
                db.executemany(
                    "INSERT INTO windows VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (*key, window.key_digest, window.epoch, window.highest, window.newest_sent_at, window.slots)
                        for window in device.windows
                    ],
                )
            db.execute("INSERT OR REPLACE INTO position VALUES (1, ?)", (segment,))

    def close(self) -> None:
        self._database.close()
