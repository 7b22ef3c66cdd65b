"""The devices of a benchmark: one CA, one keyring, one control database, and many thousand bundles.

They are enrolled as those of any large fleet (`fleetsim.identities`), and each then gets the directory of a single
device, from which the cases choose who takes part. Decides nothing about how a gate runs (`gate`).
"""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from loadtest.bench.processes import BenchError

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.configfile import load
from fleetgate.control.store import Store
from fleetsim.identities import Identities, Identity

TENANT = "acme"
_YEAR_MS = 365 * 24 * 3600 * 1000


class Installation:
    """What `fleetgate ca init` makes in `directory`, and `devices/<id>` bundles beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.devices = directory / "devices"
        self.devices.mkdir(parents=True)
        self._file = directory / "fleetgate.toml"
        self._file.write_text('trust_domain = "fleet.example"\n')
        command = [sys.executable, "-m", "fleetgate.cli.main", "--config", str(self._file), "ca", "init"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            raise BenchError(made.stderr.strip())
        self.config: Config = load(self._file)
        Store.open(self.config, SystemClock(), create=True).close()  # makes the tables

    @property
    def control(self) -> Path:
        return self.directory / "control.db"

    def enrol(self, count: int) -> None:
        """Sees to it that there are at least `count` devices, with bundles."""
        self._enrol(TENANT, "car", count, self.devices)

    def enrol_tenant(self, tenant: str, count: int) -> Path:
        """The directory of `count` devices of another tenant."""
        devices = self.directory / tenant
        devices.mkdir(exist_ok=True)
        self._enrol(tenant, tenant, count, devices)
        return devices

    def _enrol(self, tenant: str, name: str, count: int, devices: Path) -> None:
        there = sum(1 for _ in devices.iterdir())
        if count > there:
            identities = Identities.prepare(self._file, count, self.directory / "identities" / tenant, (tenant,), name)
            for number in range(there, count):
                self._write_bundle(devices, identities[number])

    def _write_bundle(self, devices: Path, identity: Identity) -> None:
        bundle = devices / identity.device_id
        bundle.mkdir(mode=0o700)
        facts = {name: getattr(identity, name) for name in ("tenant", "device_id", "vehicle_id", "kid")}
        mac_key = base64.b64encode(identity.mac_key).decode()
        (bundle / "device.json").write_text(json.dumps({**facts, "mac_key": mac_key}))
        (bundle / "certificate.pem").write_bytes(identity.certificate + identity.chain)
        (bundle / "private.pem").write_bytes(identity.private_key)
        (bundle / "ca.pem").write_text(identity.ca)


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
