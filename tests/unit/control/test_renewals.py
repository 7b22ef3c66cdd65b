"""A person gives a device its next credential."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateSigningRequestBuilder, Name
from tests.lives import CAR, HOUR_MS, actions, do, held, renewed, standing, statuses

from fleetgate.control.devices import enrol, renew, revoke
from fleetgate.control.records import CredentialStatus
from fleetgate.control.retirement import suspend
from fleetgate.errors import Conflict

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

ACTIVE, FORMER, REVOKED = CredentialStatus


def csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    return CertificateSigningRequestBuilder().subject_name(Name([])).sign(key, SHA256()).public_bytes(Encoding.PEM)


def test_the_next_credential_has_the_present_one_as_its_parent(car: Gate) -> None:
    """Which becomes a former one and stays good for retries; the vehicle does not change."""
    first = held(car)[0].fingerprint
    assert renewed(car).vehicle_id == "car"
    assert statuses(car) == [ACTIVE, FORMER]
    assert [credential.parent for credential in held(car)] == [first, None]
    assert actions(car) == ["enrol acme device/car-tcu", "renew acme device/car-tcu"]


def test_an_expired_credential_can_be_renewed(car: Gate) -> None:
    """By a person: the car stood for long."""
    car.clock.ms += 366 * 24 * HOUR_MS
    assert standing(car) == "expired"
    renewed(car)
    assert statuses(car) == [ACTIVE, FORMER]


def test_a_revoked_credential_is_not_renewed(car: Gate) -> None:
    """Its device is enrolled again, by a person who says so."""
    do(car, revoke, *CAR, "lost")
    with pytest.raises(Conflict, match="device enroll"):
        renewed(car)


def test_a_suspended_device_is_not_renewed(car: Gate) -> None:
    """Nor one that is banned: it comes back first."""
    do(car, suspend, *CAR, "a test")
    with pytest.raises(Conflict, match="suspended"):
        renewed(car)


def test_a_key_that_was_certified_before_is_refused(car: Gate) -> None:
    """Another unit's, or one that was revoked."""
    request = csr(ec.generate_private_key(ec.SECP256R1()))
    do(car, enrol, car.authority, car.keyring, "acme", "bus", None, 30, request)
    with pytest.raises(Conflict, match="certified before"):
        do(car, renew, car.authority, car.keyring, *CAR, 30, request)
