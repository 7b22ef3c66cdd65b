"""Decides how the devices of a whole fleet are prepared and read: all in one file, and each when it is needed.

The file is the gate's own (`fleetgate device enroll-many --archive`), and the gate's own command fills it: keys and
certificates are real, and every device is on record. Preparing goes on where it ended, and makes only what is missing.
A file may also come from elsewhere, so what is read is looked at first. Directories of single devices are `bundle`'s.
"""

import os
import shutil
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from fleetsim import mac
from fleetsim.bundle import BundleError, Device, read_bundle
from fleetsim.foreign import open_foreign
from fleetsim.gate import RunError

ARCHIVE, LIST = "identities.db", "identities.csv"
# As `fleetgate device enroll-many` writes it.
_SCHEMA = """
CREATE TABLE authority (number INTEGER PRIMARY KEY, chain BLOB, ca BLOB, UNIQUE (chain, ca));
CREATE TABLE device (
    number INTEGER PRIMARY KEY, tenant TEXT, device_id TEXT, vehicle_id TEXT, kid INTEGER, mac_key BLOB,
    certificate BLOB, private_key BLOB, authority INTEGER REFERENCES authority, UNIQUE (tenant, device_id)
);
CREATE TABLE waiting (first INTEGER NOT NULL);
"""
_ONE = (
    "SELECT authority, tenant, device_id, vehicle_id, kid, mac_key, certificate, private_key "
    "FROM device WHERE number = ?"
)
_AUTHORITIES = "SELECT number, chain, ca FROM authority"
# Behind the last one on record, bundles may wait for a run that was killed.
_COUNT = "SELECT coalesce(min(first) - 1, (SELECT coalesce(max(number), 0) FROM device)) FROM waiting"
_Name = Annotated[str, Meta(min_length=1, max_length=128)]


class _Row(NamedTuple):
    authority: int
    tenant: _Name
    device_id: _Name
    vehicle_id: _Name
    kid: Annotated[int, Meta(ge=0, lt=2**32)]
    mac_key: Annotated[bytes, Meta(min_length=mac.KEY_BYTES, max_length=mac.KEY_BYTES)]
    certificate: bytes
    private_key: bytes | None


@dataclass(frozen=True)
class Identity(Device):
    """A device with its certificate, what stands behind that, and its private key, in PEM; `ca` is whom it trusts."""

    certificate: bytes = field(repr=False)
    private_key: bytes = field(repr=False)
    chain: bytes = field(repr=False)
    ca: str = field(repr=False)

    def trusted(self) -> str:
        return self.ca

    def present_in(self, context: ssl.SSLContext) -> None:
        try:
            # The library takes a key from a file only: this one is in memory and has no name.
            with open(os.memfd_create("identity"), "wb") as file:
                file.write(self.certificate + self.chain + self.private_key)
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
        except (ssl.SSLError, OSError) as error:
            raise BundleError(f"{self.name}: its certificate or key cannot be used ({error})") from None


class Identities:
    """The devices of one file, in the order in which they were enrolled. One that is asked for is read then."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._db = open_foreign(file, _SCHEMA)
            [self._count] = msgspec.convert(self._db.execute(_COUNT).fetchone(), tuple[Annotated[int, Meta(ge=0)]])
            authorities = msgspec.convert(self._db.execute(_AUTHORITIES).fetchall(), list[tuple[int, bytes, bytes]])
            # Of all devices under one authority these are the same objects: they would be half of the memory.
            self._authorities = {number: (chain, ca.decode("ascii")) for number, chain, ca in authorities}
        except (OSError, sqlite3.Error, ValueError) as error:
            raise BundleError(f"{file}: {error}; make it with `fleetsim identities prepare`") from None

    @classmethod
    def open(cls, directory: Path) -> "Identities":
        """Those that `prepare` made in `directory`. Raises BundleError."""
        return cls(directory / ARCHIVE)

    @classmethod
    def prepare(
        cls, gate: Path, count: int, directory: Path, tenants: Sequence[str] = ("acme",), name: str = "sim"
    ) -> "Identities":
        """Sees to it that the gate with this configuration file knows `count` devices, spread over the tenants, and
        that `directory` has what they need; `name` is how their vehicles' names begin. Raises RunError."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{directory}: {error.strerror}") from None
        names = (f"{tenants[number % len(tenants)]},{name}-{number + 1:06d}" for number in range(count))
        (directory / LIST).write_text("\n".join(["tenant,vehicle", *names]) + "\n")
        enroll = ("device", "enroll-many", str(directory / LIST), "--archive", str(directory / ARCHIVE))
        done = subprocess.run([_fleetgate(), "--config", str(gate), *enroll], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RunError(f"`fleetgate device enroll-many` ended with {done.returncode}: its reasons stand above")
        return cls.open(directory)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Identity:
        """Raises IndexError, BundleError."""
        if not 0 <= index < self._count:
            raise IndexError(f"there are {self._count} identities, and none at {index}")
        try:
            row = msgspec.convert(self._db.execute(_ONE, (index + 1,)).fetchone(), _Row)
            chain, ca = self._authorities[row.authority]
        except (sqlite3.Error, ValueError, KeyError) as error:
            # The library's message names the column by its place and the type, never the value.
            raise BundleError(f"{self._file}: device {index + 1} cannot be read ({error}); enrol it again") from None
        if row.private_key is None:
            raise BundleError(
                f"{row.tenant}/{row.device_id} made its private key itself: nobody else can be this device"
            )
        names = (row.tenant, row.device_id, row.vehicle_id, row.kid, row.mac_key)
        return Identity(*names, row.certificate, row.private_key, chain, ca)

    def __iter__(self) -> Iterator[Identity]:
        return (self[index] for index in range(self._count))


def devices_in(directory: Path) -> Iterable[Device]:
    """The devices of a directory that `prepare` made, or of the bundles in it, in order of name. Raises BundleError."""
    if not directory.is_dir():
        raise BundleError(f"{directory} is no directory: name one of device bundles or of identities")
    if (directory / ARCHIVE).exists():
        return Identities.open(directory)
    return (read_bundle(path) for path in sorted(directory.iterdir()) if path.is_dir())


def _fleetgate() -> str:
    """The gate's command: the one beside this Python, or on the PATH."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    found = shutil.which("fleetgate", path=places)
    if found is None:
        raise RunError("there is no `fleetgate` command on the PATH: install the gate, or activate its environment")
    return found
