"""The device bundle: the directory that `fleetgate device enroll` writes and a device agent reads.

    device.json      0600  {"tenant", "device_id", "vehicle_id", "kid", "mac_key": base64 of 32 bytes}
    private.pem      0600  the private key, PKCS #8; absent where the device made its key itself
    certificate.pem        the leaf, then the issuing CA
    ca.pem                 what the gate's own certificate is verified with

Nobody keeps a copy of the private key: a lost bundle is replaced by revoking the device and enrolling it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import select

from fleetgate.control.devices import Enrolment
from fleetgate.control.schema import credentials
from fleetgate.control.secretfile import write_new
from fleetgate.control.store import Store
from fleetgate.durable import sync_directory, sync_file
from fleetgate.errors import ConfigError, Conflict, FleetgateError

DEVICE, CERTIFICATE = "device.json", "certificate.pem"


def write_bundle(directory: Path, enrolment: Enrolment) -> None:
    """Writes the bundle into a new directory, durable with its name; leaves none behind when it fails.

    Raises Conflict where the directory exists, ConfigError where it cannot be written. Called inside the transaction
    of the enrolment, so that a device whose keys could not be handed over is not enrolled.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        raise Conflict(
            f"{directory} exists already (of another tenant's device?): name another directory with --out"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot make the directory {directory}: {error.strerror}") from None
    try:
        for name, mode, content in _files(enrolment):
            write_new(directory / name, content, mode)
        for parent in (directory.parent, directory.parent.parent):  # the first may be new as well
            sync_directory(parent)
    except FleetgateError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise ConfigError(f"cannot make {directory} durable: {error.strerror}") from None


def is_on_record(store: Store, directory: Path) -> bool:
    """Whether the bundle in `directory` is that of a credential in the records. One that is not, or not whole, was left
    by a command that was killed before its commit: nobody was given those keys."""
    try:
        leaf = x509.load_pem_x509_certificate((directory / CERTIFICATE).read_bytes())
    except (ValueError, FileNotFoundError):  # not whole: a bundle is durable before its device is committed
        return False
    return certificate_on_record(store, leaf.fingerprint(SHA256()))


def certificate_on_record(store: Store, fingerprint: bytes) -> bool:
    with_it = select(credentials.c.credential_id).where(credentials.c.fingerprint == fingerprint)
    return bool(store.rows(with_it))


def stage_bundle(directory: Path, enrolment: Enrolment) -> None:
    """Writes the bundle into a new directory, and leaves it to `sync_bundles` to make it durable. Raises OSError."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700)
    for name, mode, content in _files(enrolment):
        descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)


def sync_bundles(directories: Iterable[Path]) -> None:
    """Makes many bundles durable, with their names: after all were written, since the first sync takes most of the
    others' work along. Raises OSError."""
    parents = set[Path]()
    for directory in directories:
        for path in directory.iterdir():
            sync_file(path)
        sync_directory(directory)
        parents |= {directory.parent, directory.parent.parent}
    for parent in parents:
        sync_directory(parent)


def _files(enrolment: Enrolment) -> list[tuple[str, int, bytes]]:
    """(name, mode, content)"""
    device = {name: getattr(enrolment, name) for name in ("tenant", "device_id", "vehicle_id", "kid", "mac_key")}
    files = [
        (DEVICE, 0o600, msgspec.json.format(msgspec.json.encode(device)) + b"\n"),
        (CERTIFICATE, 0o644, enrolment.certificate),
        ("ca.pem", 0o644, enrolment.ca),
    ]
    return files if enrolment.private is None else [*files, ("private.pem", 0o600, enrolment.private)]
