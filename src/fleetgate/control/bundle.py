"""The device bundle: the directory that `fleetgate device enroll` writes and a device agent reads.

    device.json      0600  {"tenant", "device_id", "vehicle_id", "kid", "mac_key": base64 of 32 bytes}
    private.pem      0600  the private key, PKCS #8; absent where the device made its key itself
    certificate.pem        the leaf, then the issuing CA
    ca.pem                 what the gate's own certificate is verified with

Nobody keeps a copy of the private key: a lost bundle is replaced by revoking the device and enrolling it again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from fleetgate.control.devices import Enrolment
from fleetgate.control.secretfile import write_new, write_secret
from fleetgate.errors import ConfigError, Conflict, FleetgateError


def write_bundle(directory: Path, enrolment: Enrolment) -> None:
    """Writes the bundle into a new directory; leaves none behind when it fails.

    Raises Conflict where the directory exists, ConfigError where it cannot be written. Called inside the transaction
    of the enrolment, so that a device whose keys could not be handed over is not enrolled.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700)
    except FileExistsError:
        raise Conflict(f"{directory} exists already: name another directory with --out") from None
    except OSError as error:
        raise ConfigError(f"cannot make the directory {directory}: {error.strerror}") from None
    device = {name: getattr(enrolment, name) for name in ("tenant", "device_id", "vehicle_id", "kid", "mac_key")}
    try:
        write_secret(directory / "device.json", msgspec.json.format(msgspec.json.encode(device)) + b"\n")
        if enrolment.private is not None:
            write_secret(directory / "private.pem", enrolment.private)
        write_new(directory / "certificate.pem", enrolment.certificate)
        write_new(directory / "ca.pem", enrolment.ca)
    except FleetgateError:
        shutil.rmtree(directory, ignore_errors=True)
        raise
