"""Enrols the devices of a benchmark: one CA, one keyring, one control database, and many thousand bundles.

The records and certificates are those that `fleetgate device enroll` makes, from the same functions; only the road is
shorter: rows in bulk in one transaction, files without a sync each. Decides nothing about how a gate runs (`gate`).
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from loadtest.bench.processes import BenchError

from fleetgate.clock import SystemClock
from fleetgate.config import Config, load
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority, private_pem
from fleetgate.control.profile import key_digest_of
from fleetgate.control.store import Store
from fleetgate.judge.keys import derive_mac_key

TENANT = "acme"
_YEAR_MS = 365 * 24 * 3600 * 1000


class Record(NamedTuple):
    """A row of `credentials`; the other tables follow from tenant and device id."""

    tenant: str
    device_id: str
    certificate: str
    serial: str
    fingerprint: bytes
    key_digest: bytes


class Installation:
    """What `fleetgate ca init` makes in `directory`, and `devices/<id>` bundles beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.devices = directory / "devices"
        self.devices.mkdir(parents=True)
        file = directory / "fleetgate.toml"
        file.write_text('trust_domain = "fleet.example"\n')
        command = [sys.executable, "-m", "fleetgate.cli.main", "--config", str(file), "ca", "init"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise BenchError(made.stderr.strip())
        self.config: Config = load(file)
        Store.open(self.config, SystemClock(), create=True).close()  # makes the tables
        self._authority = Authority.load(directory / "pki", SystemClock())
        self._keyring = Keyring.load(self.config.path(self.config.edge.keyring))
        self._kid = self._keyring.issuing_kid(SystemClock().now_ms())
        self._enrolled = 0
        (directory / "ca.pem").write_bytes(self._authority.root_pem)

    @property
    def control(self) -> Path:
        return self.directory / "control.db"

    def enrol(self, count: int) -> None:
        """Sees to it that there are at least `count` devices, with bundles."""
        if count > self._enrolled:
            names = [f"car-{number:06d}-tcu" for number in range(self._enrolled, count)]
            insert(self.control, (self._device(self.devices, TENANT, name) for name in names), self._kid)
            self._enrolled = count

    def enrol_tenant(self, tenant: str, count: int) -> Path:
        """The directory of `count` devices of another tenant."""
        devices = self.directory / tenant
        if not devices.exists():
            devices.mkdir()
            names = [f"{tenant}-{number:04d}-tcu" for number in range(count)]
            insert(self.control, (self._device(devices, tenant, name) for name in names), self._kid)
        return devices

    def _device(self, devices: Path, tenant: str, name: str) -> Record:
        key = generate_private_key(SECP256R1())
        certificate = self._authority.issue_device(tenant, name, key.public_key())
        leaf = certificate.public_bytes(Encoding.PEM)
        digest = key_digest_of(key.public_key())
        self._write_bundle(devices / name, tenant, leaf + self._authority.chain_pem, private_pem(key), digest)
        serial = f"{certificate.serial_number:x}"
        return Record(tenant, name, leaf.decode(), serial, certificate.fingerprint(SHA256()), digest)

    def _write_bundle(self, bundle: Path, tenant: str, chain: bytes, private: bytes, digest: bytes) -> None:
        name = bundle.name
        bundle.mkdir(mode=0o700)
        root = self._keyring.root(self._kid)
        assert root is not None  # the newest is an active one
        mac_key = base64.b64encode(derive_mac_key(root, tenant, name, digest)).decode()
        facts = {"tenant": tenant, "device_id": name, "vehicle_id": _vehicle(name)}
        device = {**facts, "kid": self._kid, "mac_key": mac_key}
        (bundle / "device.json").write_text(json.dumps(device))
        (bundle / "certificate.pem").write_bytes(chain)
        (bundle / "private.pem").write_bytes(private)
        os.link(self.directory / "ca.pem", bundle / "ca.pem")


def park(control: Path, count: int, kid: int) -> None:
    """Adds devices that never connect: whole records of the sizes of real ones, random digests, no bundle.

    Made by the database itself: 10 s for a million, a third of what rows from here take.
    """
    values = {
        "tenant": TENANT,
        "now": time.time_ns() // 1_000_000,
        "year": _YEAR_MS,
        "pem": "-----BEGIN CERTIFICATE-----\n" + "M" * 860 + "\n-----END CERTIFICATE-----\n",
        "kid": kid,
    }
    with sqlite3.connect(control) as db:
        db.execute(f"PRAGMA cache_size = -{PARKING_KIB}")
        db.execute(_PARKED, (count,))
        for table, row in _PARKED_ROWS.items():
            db.execute(f"INSERT INTO {table} SELECT {row} FROM parked, meta WHERE name = 'revision'", values)  # noqa: S608
        db.execute("UPDATE meta SET value = value + ? WHERE name = 'revision'", (count,))
    db.close()


PARKING_KIB = 400_000  # the indexes of random digests are built in memory

_PARKED = """
CREATE TEMPORARY TABLE parked AS
WITH RECURSIVE counted (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM counted WHERE n < ?)
SELECT n, printf('parked-%07d', n) AS vehicle, printf('parked-%07d-tcu', n) AS device FROM counted
"""

_PARKED_ROWS = {
    "vehicles": ":tenant, vehicle, :now",
    "devices": ":tenant, device, 'active', 'trusted', :now, 0, :now",
    "credentials": "NULL, :tenant, device, :pem, lower(hex(randomblob(20))), randomblob(32), randomblob(32), :kid, "
    "NULL, :now - 1000, :now + :year, 'active', NULL, NULL, NULL, NULL",
    "bindings": "NULL, :tenant, device, vehicle, :now, NULL",
    "changes": "value + n, 'enrol', :tenant, device, :now",
}


def insert(control: Path, records: Iterable[Record], kid: int) -> None:
    """All rows of each device that an edge reads, with its revision, in one transaction. The audit, a chain that is
    written row by row, has none of them."""
    now_ms = time.time_ns() // 1_000_000
    with sqlite3.connect(control) as db:
        revision = int(db.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()[0])
        for chunk in _chunks(records):
            tenants = {record.tenant for record in chunk}
            db.executemany("INSERT OR IGNORE INTO tenants VALUES (?, ?)", [(tenant, now_ms) for tenant in tenants])
            for table, rows in _rows(chunk, kid, now_ms, revision).items():
                db.executemany(f"INSERT INTO {table} VALUES ({_marks(rows[0])})", rows)  # noqa: S608  our own names
            revision += len(chunk)
        db.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
    db.close()


def _rows(chunk: list[Record], kid: int, now_ms: int, revision: int) -> dict[str, list[tuple[object, ...]]]:
    ids = [(record.tenant, record.device_id) for record in chunk]
    valid = (now_ms - 1000, now_ms + _YEAR_MS)
    return {
        "vehicles": [(tenant, _vehicle(name), now_ms) for tenant, name in ids],
        "devices": [(tenant, name, "active", "trusted", now_ms, 0, now_ms) for tenant, name in ids],
        "credentials": [
            (None, tenant, name, pem, serial, fingerprint, digest, kid, None, *valid, "active", *4 * (None,))
            for tenant, name, pem, serial, fingerprint, digest in chunk
        ],
        "bindings": [(None, tenant, name, _vehicle(name), now_ms, None) for tenant, name in ids],
        "changes": [(revision + 1 + i, "enrol", *who, now_ms) for i, who in enumerate(ids)],
    }


def _chunks(records: Iterable[Record], size: int = 10_000) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _marks(row: tuple[object, ...]) -> str:
    return ", ".join("?" * len(row))


def _vehicle(device_id: str) -> str:
    return device_id.removesuffix("-tcu")
