"""Hands over the bundles of many devices in one SQLite file, where a directory for each would be 400,000 files.

    device     number (from 1, without gaps), tenant, device_id, vehicle_id, kid, mac_key (32 bytes),
               certificate (the leaf, PEM), private_key (PEM; null where the device made its key itself), authority
    authority  number, chain (what stands behind the leaf), ca (what the gate's own certificate is verified with), PEM
    waiting    first: from this number on, bundles wait until their devices are on record

For load generators and production lines: whoever reads it has every key in it, so its mode is 0600.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from fleetgate.control.bundle import certificate_on_record
from fleetgate.control.devices import Enrolment
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError, Conflict

BATCH = 500  # the most that one look-up takes
_SCHEMA = """
CREATE TABLE IF NOT EXISTS authority (number INTEGER PRIMARY KEY, chain BLOB, ca BLOB, UNIQUE (chain, ca));
CREATE TABLE IF NOT EXISTS device (
    number INTEGER PRIMARY KEY, tenant TEXT, device_id TEXT, vehicle_id TEXT, kid INTEGER, mac_key BLOB,
    certificate BLOB, private_key BLOB, authority INTEGER REFERENCES authority, UNIQUE (tenant, device_id)
);
CREATE TABLE IF NOT EXISTS waiting (first INTEGER NOT NULL);
"""
_OF_AUTHORITY = "INSERT INTO authority (chain, ca) VALUES (?, ?) ON CONFLICT DO NOTHING"
_DEVICE = "INSERT INTO device SELECT NULL, ?, ?, ?, ?, ?, ?, ?, number FROM authority WHERE chain = ? AND ca = ?"


class Archive:
    """A `control.bulk.Handover`."""

    def __init__(self, file: Path) -> None:
        self.batch = BATCH
        self._file = file
        self._db: sqlite3.Connection

    @contextmanager
    def working(self, store: Store) -> Iterator[None]:
        """Raises ConfigError, Conflict."""
        try:
            with closing(_open(self._file)) as self._db:
                self._recover(store)
                yield
        except (OSError, sqlite3.Error) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"cannot write into {self._file}: {why}; mend that and run the same again") from None

    def has(self, tenant: str, device_id: str) -> bool:
        found = self._db.execute("SELECT 1 FROM device WHERE tenant = ? AND device_id = ?", (tenant, device_id))
        return found.fetchone() is not None

    def place_of(self, tenant: str, device_id: str) -> str:
        return f"the bundle of {tenant}/{device_id} in {self._file}"

    def keep(self, enrolments: Sequence[Enrolment]) -> None:
        with self._db:
            self._db.execute("INSERT INTO waiting SELECT coalesce(max(number), 0) + 1 FROM device")
            rows = []
            for each in enrolments:
                leaf, chain = _split(each.certificate)
                self._db.execute(_OF_AUTHORITY, (chain, each.ca))
                names = (each.tenant, each.device_id, each.vehicle_id, each.kid, each.mac_key)
                rows.append((*names, leaf, each.private, chain, each.ca))
            self._db.executemany(_DEVICE, rows)

    def hand_over(self, enrolments: Sequence[Enrolment]) -> None:
        with self._db:
            self._db.execute("DELETE FROM waiting")

    def _recover(self, store: Store) -> None:
        """Finishes what a killed run left: a batch, of which all devices are on record or none is."""
        waiting = self._db.execute("SELECT number, certificate FROM device, waiting WHERE number >= first").fetchall()
        gone = [
            (number,)
            for number, leaf in waiting
            if not certificate_on_record(store, x509.load_pem_x509_certificate(leaf).fingerprint(SHA256()))
        ]
        with self._db:
            self._db.executemany("DELETE FROM device WHERE number = ?", gone)
            self._db.execute("DELETE FROM waiting")


def _split(certificate: bytes) -> tuple[bytes, bytes]:
    """(leaf, chain) of PEM that holds both."""
    end = certificate.index(_END) + len(_END)
    return certificate[:end], certificate[end:]


_END = b"-----END CERTIFICATE-----\n"


def _open(file: Path) -> sqlite3.Connection:
    """For this process alone, for as long as it is open. Raises Conflict, OSError, sqlite3.Error."""
    file.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    file.chmod(0o600)
    db = sqlite3.connect(file, timeout=0)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # kept behind the first transaction
        db.execute("PRAGMA synchronous = FULL")
        with db:
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
    except sqlite3.OperationalError as error:
        db.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise Conflict(f"another `fleetgate device enroll-many` is at work in {file}: wait until it ends") from None
        raise
    return db
