"""The checkpoint: windows, states and scores of devices, open alerts, and the segment up to which all of it is here.

A cache of the spool that lets old segments be deleted and starts be quick: on start the segments behind it are
applied to it. Devices are read when they are first needed, so a million known devices cost nothing. Written in small
parts, so that nobody waits for the whole: devices by `save`, as they are at that moment, then the position by
`advance`. A device may therefore be ahead of the position; applying records to it that it has already changes nothing
(`accept.recovery`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from fleetgate.converting import converter
from fleetgate.errors import SpoolError
from fleetgate.judge.sequence import WINDOW
from fleetgate.spool.database import Database
from fleetgate.spool.format import AlertRecord

_SCHEMA = """
CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY CHECK (one = 1), segment INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS devices (
    tenant TEXT NOT NULL, device_id TEXT NOT NULL, epoch INTEGER NOT NULL, state TEXT NOT NULL,
    state_at INTEGER NOT NULL, kid INTEGER NOT NULL DEFAULT 0, kid_at INTEGER NOT NULL DEFAULT 0,
    decided_at INTEGER NOT NULL DEFAULT 0, epoch_sent_at INTEGER NOT NULL DEFAULT 0,
    before_trouble TEXT NOT NULL DEFAULT 'null', scores TEXT NOT NULL DEFAULT '[]',
    software TEXT NOT NULL DEFAULT '', issuer TEXT NOT NULL DEFAULT '', seen_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, device_id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS windows (
    tenant TEXT NOT NULL, device_id TEXT NOT NULL, key_digest BLOB NOT NULL, epoch INTEGER NOT NULL,
    highest INTEGER NOT NULL, newest_sent_at INTEGER NOT NULL, slots BLOB NOT NULL,
    PRIMARY KEY (tenant, device_id, key_digest, epoch));
CREATE TABLE IF NOT EXISTS alerts (key TEXT PRIMARY KEY, record BLOB NOT NULL);
"""

WINDOWS_AT_ONCE = 512  # 11 values each: far from the 32,766 that SQLite allows in a statement


STATES = "trusted|watched|quarantined|released|banned"


class WindowState(Struct, frozen=True, array_like=True):
    """`slots` is the ring of a window, 8,192 bytes; `newest_sent_at` Unix ms."""

    key_digest: Annotated[bytes, Meta(min_length=32, max_length=32)]
    epoch: Annotated[int, Meta(ge=0)]
    highest: int
    newest_sent_at: int
    slots: Annotated[bytes, Meta(min_length=8 * WINDOW, max_length=8 * WINDOW)]


class ScoreState(Struct, frozen=True, array_like=True):
    """What a signal made of the device's score, as of `at` (Unix ms)."""

    signal: str
    score: float
    at: int


class DeviceState(Struct, frozen=True, array_like=True):
    """What the edge knows of a device beyond the records of control; times are Unix ms. `software`, `issuer` and
    `before_trouble`: see `accept.known.KnownDevice`; `seen_at` is when it last changed here."""

    tenant: str
    device_id: str
    epoch: Annotated[int, Meta(ge=0)]
    state: Annotated[str, Meta(pattern=f"^({STATES})$")]
    state_at: int
    kid: int
    kid_at: int
    software: str
    issuer: str
    seen_at: int
    decided_at: int
    epoch_sent_at: int
    before_trouble: tuple[str, str] | None
    scores: list[ScoreState]
    windows: list[WindowState]


class Checkpoint:
    """The file `checkpoint.db` of a spool. Safe to use from several threads."""

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self._path = path
        self._database = Database(path, _SCHEMA, write=write)
        # In a former file no device has told its key id yet, or its score was one number: it counts from 0 again.
        integers = ("kid", "kid_at", "decided_at", "epoch_sent_at", "seen_at")
        text, nothing, none = (f"TEXT NOT NULL DEFAULT '{value}'" for value in ("", "null", "[]"))
        self._database.add_columns(
            "devices", *integers, software=text, issuer=text, before_trouble=nothing, scores=none
        )
        self._database.drop_columns("devices", "score", "scored_at")
        rows = self._database.rows("SELECT segment FROM position")
        self._segment = int(rows[0][0]) if rows else 0

    def segment(self) -> int:
        """The number of the last segment whose records are all in here; 0 at the beginning."""
        return self._segment

    def unused(self) -> bool:
        """Whether nothing was ever saved in here."""
        return not self._segment and not self._database.rows("SELECT 1 FROM devices LIMIT 1")

    def device(self, tenant: str, device_id: str) -> DeviceState | None:
        key = (tenant, device_id)
        with self._database.reading() as db:
            row = db.execute(
                f"SELECT {', '.join(_DEVICE_COLUMNS[2:])} FROM devices WHERE tenant=? AND device_id=?",  # noqa: S608
                key,
            ).fetchone()
            if row is None:
                return None
            windows = db.execute(
                "SELECT key_digest, epoch, highest, newest_sent_at, slots FROM windows WHERE tenant=? AND device_id=?",
                key,
            ).fetchall()
        try:  # SQLite takes anything, and has no checksums
            told = map(msgspec.json.decode, row[-2:])
            return _device_state((*key, *row[:-2], *told, windows))
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
            raise SpoolError(
                f"{self._path}: what it has of {tenant}/{device_id} is damaged ({error}): restore it, or see what "
                "`fleetgate spool repair` can do without it"
            ) from None

    def save(self, devices: Sequence[DeviceState]) -> None:
        """Replaces these devices whole; durable with the next `advance`. A few dozen are quick, whatever they hold."""
        if len(devices) > 1 and sum(len(device.windows) for device in devices) > WINDOWS_AT_ONCE:
            half = len(devices) // 2
            self.save(devices[:half])
            self.save(devices[half:])
        elif devices:
            self._replace(devices)

    def _replace(self, devices: Sequence[DeviceState]) -> None:
        """One statement for all of them, not one for each: SQLite lets go of the GIL in each step of a statement, and
        each time it comes back it takes it from the thread that serves the vehicles: 96 times for 1,000 devices, where
        it was 4,000. Windows are updated in place, and of their pages only those written that changed.
        """
        names = [(device.tenant, device.device_id) for device in devices]
        states = [
            (
                *name,
                device.epoch,
                device.state,
                device.state_at,
                device.kid,
                device.kid_at,
                device.software,
                device.issuer,
                device.seen_at,
                device.decided_at,
                device.epoch_sent_at,
                msgspec.json.encode(device.before_trouble).decode() if device.before_trouble else "null",
                msgspec.json.encode(device.scores).decode() if device.scores else "[]",
            )
            for name, device in zip(names, devices, strict=True)
        ]
        windows = [
            (*name, window.key_digest, window.epoch, window.highest, window.newest_sent_at, window.slots)
            for name, device in zip(names, devices, strict=True)
            for window in device.windows
        ]
        kept = [window[:4] for window in windows]
        with self._database.writing(synced=False) as db:
            db.execute(_REPLACE_DEVICES.format(_marks(states)), _flat(states))
            if len(kept) > WINDOWS_AT_ONCE:  # one device with hundreds of keys: more than a statement may bind
                kept = []
            db.execute(
                _DROP_WINDOWS.format(names=_marks(names), kept=_marks(kept) or _NONE), _flat(names) + _flat(kept)
            )
            for start in range(0, len(windows), WINDOWS_AT_ONCE):
                some = windows[start : start + WINDOWS_AT_ONCE]
                db.execute(_REPLACE_WINDOWS.format(_marks(some)), _flat(some))

    def alerts(self) -> list[AlertRecord]:
        """Those that the edge had open."""
        try:
            return [_decode_alert(record) for (record,) in self._database.rows("SELECT record FROM alerts")]
        except msgspec.MsgspecError as error:
            raise SpoolError(
                f"{self._path}: an alert in it is damaged ({error}): restore it, or see what `fleetgate spool repair` "
                "can do without it"
            ) from None

    def keep_alerts(self, records: Sequence[AlertRecord]) -> None:
        """Replaces them; durable with the next `advance`."""
        with self._database.writing(synced=False) as db:
            db.execute("DELETE FROM alerts")
            db.executemany("INSERT INTO alerts VALUES (?, ?)", [(record.key, _encode(record)) for record in records])

    def in_state(self, state: str) -> list[tuple[str, str]]:
        """(tenant, device id) of the devices in this state."""
        return self._database.rows("SELECT tenant, device_id FROM devices WHERE state = ?", (state,))

    def census(self, since_ms: int) -> list[tuple[str, str, str, int]]:
        """(tenant, software, issuer, devices) of those seen since then. Of a million devices it takes a second."""
        return self._database.rows(
            "SELECT tenant, software, issuer, count(*) FROM devices WHERE seen_at >= ? GROUP BY 1, 2, 3", (since_ms,)
        )

    def advance(self, segment: int) -> None:
        """Durable when it returns: this position, and every device saved before."""
        with self._database.writing() as db:
            db.execute("INSERT OR REPLACE INTO position VALUES (1, ?)", (segment,))
        self._segment = segment

    def close(self) -> None:
        self._database.close()


_encode = msgspec.msgpack.Encoder().encode
_decode_alert = msgspec.msgpack.Decoder(AlertRecord).decode
_device_state = converter(DeviceState)

_DEVICE_COLUMNS = DeviceState.__struct_fields__[:-1]  # by name: what was added to an older file stands at its end

_REPLACE_DEVICES = f"INSERT OR REPLACE INTO devices ({', '.join(_DEVICE_COLUMNS)}) VALUES {{}}"  # noqa: S608

_REPLACE_WINDOWS = """
INSERT INTO windows VALUES {}
ON CONFLICT DO UPDATE SET highest = excluded.highest, newest_sent_at = excluded.newest_sent_at, slots = excluded.slots
"""

_DROP_WINDOWS = """
DELETE FROM windows WHERE rowid IN (
    WITH named (tenant, device_id) AS (VALUES {names})
    SELECT windows.rowid FROM named CROSS JOIN windows USING (tenant, device_id)
    WHERE (windows.tenant, windows.device_id, key_digest, epoch) NOT IN (VALUES {kept}))
"""
"""The windows of some devices but for those kept. CROSS JOIN: by the index, a device at a time."""

_NONE = "('', '', x'', -1)"
"""No window: a list of NULL would not do, to which nothing compares."""


def _marks(rows: Sequence[Sequence[object]]) -> str:
    return ", ".join(f"({', '.join('?' * len(row))})" for row in rows)


def _flat(rows: Sequence[Sequence[object]]) -> list[object]:
    return list(chain.from_iterable(rows))
