"""What speaks against a device: in the records now, and what this edge was once told to refuse, on its own disk.

A control database that was restored from an older day must not let anybody in who was denied before: the denial of a
device is lifted only by a later change of that very device's records, that of a key by nothing. One may be still to
come: a revocation that was decided for a later time takes effect then, whatever became of control. The newest change
seen is kept too, so that an older database, or one that went on from an older day, is noticed and alarmed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from fleetgate.control.records import Change, CredentialStatus, DeviceRecord, DeviceState, DeviceStatus
from fleetgate.errors import SpoolError
from fleetgate.judge import Reason
from fleetgate.spool.database import Database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS newest (one INTEGER PRIMARY KEY CHECK (one = 1), change BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS denials (
    tenant TEXT NOT NULL, device_id TEXT NOT NULL, key_digest BLOB NOT NULL, reason TEXT NOT NULL,
    revision INTEGER NOT NULL, from_ms INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, device_id, key_digest)) WITHOUT ROWID;
"""

REFUSAL_OF_STATUS: Mapping[DeviceStatus, Reason | None] = {
    DeviceStatus.ACTIVE: None,
    DeviceStatus.SUSPENDED: Reason.SUSPENDED,
    DeviceStatus.BANNED: Reason.BANNED,
    DeviceStatus.DECOMMISSIONED: Reason.UNKNOWN_DEVICE,
}

WHOLE_DEVICE = b""
"""In place of a key digest: the denial is of the device, whatever credential it presents."""


class Denial(NamedTuple):
    """Why a device or credential is refused, from that time on (Unix ms)."""

    reason: Reason
    from_ms: int = 0


Denials = dict[bytes, Denial]
"""The denials of one device, by key digest or WHOLE_DEVICE."""


def strictest(one: Denials, other: Denials) -> Denials:
    """Both; where they say different times of one credential, the earlier one."""
    both = {**one, **other}
    for name in one.keys() & other.keys():
        both[name] = min(other[name], one[name], key=lambda denial: denial.from_ms)
    return both


def denials_of(record: DeviceRecord | None) -> Denials:
    """What the records say against a device; of one that they do not have, that it is unknown."""
    if record is None:
        return {WHOLE_DEVICE: Denial(Reason.UNKNOWN_DEVICE)}
    denials: Denials = {}
    for entry in record.credentials:
        if entry.status is CredentialStatus.REVOKED or entry.revoked_from_ms is not None:
            # Two certificates may have one key: what is revoked of it is the earlier one.
            denials = strictest(denials, {entry.key_digest: Denial(Reason.REVOKED, entry.revoked_from_ms or 0)})
    refusal = Reason.BANNED if record.state is DeviceState.BANNED else REFUSAL_OF_STATUS[record.status]
    if refusal is not None:
        denials[WHOLE_DEVICE] = Denial(refusal)
    return denials


def for_good(denials: Denials, now_ms: int) -> Denials:
    """Those that no decision lifts: nothing brings a revoked key back, so records that do not say it of one are older.
    A revocation that is still to come may be put off."""
    return {name: denial for name, denial in denials.items() if name != WHOLE_DEVICE and denial.from_ms <= now_ms}


class DenialMemory:
    """The file `denials.db` of a spool. Durable after each call; safe to use from several threads."""

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self._path = path
        self._database = Database(path, _SCHEMA, write=write)
        self._database.add_columns("denials", "from_ms")

    def revision(self) -> int:
        """The highest revision of control that this edge has seen; 0 at the beginning."""
        rows = self._database.rows("SELECT revision FROM seen")
        return int(rows[0][0]) if rows else 0

    def newest(self) -> Change | None:
        """The change of that revision; None at the beginning, and behind an edge that did not keep it."""
        rows = self._database.rows("SELECT change FROM newest")
        with self._believed():
            return _decode_change(rows[0][0]) if rows else None

    def of(self, tenant: str, device_id: str) -> Denials:
        rows = self._database.rows(
            "SELECT key_digest, reason, from_ms FROM denials WHERE tenant=? AND device_id=?", (tenant, device_id)
        )
        with self._believed():
            return {key_digest: Denial(Reason(reason), int(from_ms)) for key_digest, reason, from_ms in rows}

    @contextmanager
    def _believed(self) -> Iterator[None]:
        """SQLite takes anything, and has no checksums: what is none of these records rotted."""
        try:
            yield
        except (msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError) as error:
            raise SpoolError(
                f"{self._path} is damaged ({error}): restore it, or see what `fleetgate spool repair` can do without it"
            ) from None

    def learn(self, reached: Change, changed: Mapping[tuple[str, str], Denials], *, newest: bool = True) -> None:
        """Replaces the denials of the changed devices by these. `reached` is the last of the changes that said so, and
        from now on the newest seen, unless `newest` says that others were seen already beyond it."""
        with self._database.writing() as db:
            for (tenant, device_id), denials in changed.items():
                db.execute("DELETE FROM denials WHERE tenant=? AND device_id=?", (tenant, device_id))
                db.executemany(
                    "INSERT INTO denials VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (tenant, device_id, digest, denial.reason.value, reached.revision, denial.from_ms)
                        for digest, denial in denials.items()
                    ],
                )
            if newest:
                db.execute("INSERT OR REPLACE INTO seen VALUES (1, ?)", (reached.revision,))
                db.execute("INSERT OR REPLACE INTO newest VALUES (1, ?)", (msgspec.json.encode(reached),))

    def close(self) -> None:
        self._database.close()


_decode_change = msgspec.json.Decoder(Change).decode
