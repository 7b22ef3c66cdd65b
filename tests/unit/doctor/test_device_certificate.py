"""Mistakes in the certificate and in the way from it to a root, each in a real certificate."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.authorities import CA, now, pem
from tests.papers import NAME, Workshop, look, named, new_key, private_pem, write_bundle

from fleetgate.clock import SystemClock
from fleetgate.doctor.files import Paths
from fleetgate.doctor.findings import Finding

Found = Callable[..., list[Finding]]
DAY = timedelta(days=1)
URI = x509.UniformResourceIdentifier

MISTAKES: dict[str, tuple[Finding, dict[str, Any]]] = {
    "expired": (Finding.EXPIRED, {"begin": now() - 40 * DAY, "days": 30}),
    "not yet valid": (Finding.NOT_YET_VALID, {"begin": now() + DAY}),
    "for servers": (Finding.WRONG_EKU, {"purposes": [ExtendedKeyUsageOID.SERVER_AUTH]}),
    "no EKU": (Finding.WRONG_EKU, {"purposes": []}),
    "any EKU": (
        Finding.WRONG_EKU,
        {"purposes": [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
    ),
    "no signature": (Finding.WRONG_USAGE, {"signs": False}),
    "no name": (Finding.WRONG_SAN, {"names": []}),
    "a DNS name": (Finding.WRONG_SAN, {"names": [x509.DNSName("car-7-tcu")]}),
    "an address": (Finding.WRONG_SAN, {"names": [x509.IPAddress(ip_address("192.0.2.7"))]}),
    "two names": (Finding.WRONG_SAN, {"names": [URI(NAME), URI(NAME + "2")]}),
    "another URI": (Finding.WRONG_SAN, {"names": [URI("https://fleet.example/car-7-tcu")]}),
    "capitals": (Finding.WRONG_SAN, {"names": [URI(NAME.replace("acme", "Acme"))]}),
    "another trust domain": (
        Finding.OTHER_TRUST_DOMAIN,
        {"names": [URI(NAME.replace("fleet.example", "other.example"))]},
    ),
    "500 days": (Finding.TOO_LONG, {"days": 500}),
    "P-384": (Finding.WRONG_KEY_TYPE, {"key": generate_private_key(SECP384R1())}),
    "RSA": (Finding.WRONG_KEY_TYPE, {"key": generate_rsa_key(65537, 2048)}),
    "a CA": (Finding.CA_AS_DEVICE, {"ca": True, "sent": ()}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_certificate_with_one_mistake(workshop: Workshop, tmp_path: Path, says: Found, mistake: str) -> None:
    """It is found first, by its name."""
    finding, given = MISTAKES[mistake]
    assert says(workshop.bundle(tmp_path / "device", **given))[0] is finding


@pytest.mark.parametrize("mistake", [name for name in MISTAKES if name not in ("a CA", "another trust domain")])
def test_one_mistake_is_one_finding(workshop: Workshop, tmp_path: Path, says: Found, mistake: str) -> None:
    """Nothing else is called wrong because of it."""
    finding, given = MISTAKES[mistake]
    assert says(workshop.bundle(tmp_path / "device", **given)) == [finding]


def test_an_ed25519_key_is_as_good(workshop: Workshop, tmp_path: Path, says: Found) -> None:
    """The other kind of key that devices may have."""
    assert says(workshop.bundle(tmp_path / "device", key=Ed25519PrivateKey.generate())) == []


def test_a_clock_before_everything_is_the_clock(good: Paths, says: Found) -> None:
    """In 1970 no certificate is valid yet, the CAs' neither: the clock is wrong, not each of them."""
    assert says(good, now_ms=1_000)[0] is Finding.CLOCK_OFF


def test_a_missing_intermediate(workshop: Workshop, tmp_path: Path, says: Found) -> None:
    """The device's certificate stands alone."""
    assert says(workshop.bundle(tmp_path / "device", sent=())) == [Finding.MISSING_INTERMEDIATE]


def test_the_root_behind_the_device_is_not_its_issuer(workshop: Workshop, tmp_path: Path, says: Found) -> None:
    """Leaf and root, with nothing between them."""
    assert says(workshop.bundle(tmp_path / "device", sent=(workshop.root,))) == [Finding.MISSING_INTERMEDIATE]


def test_a_self_signed_certificate(workshop: Workshop, tmp_path: Path, says: Found) -> None:
    """Its own issuer."""
    key = new_key()
    leaf = workshop.leaf(key.public_key(), issuer=(named("car-7-tcu"), key))
    paths = write_bundle(tmp_path / "device", [leaf], private_pem(key), [workshop.root])
    assert says(paths) == [Finding.UNKNOWN_ISSUER]


def test_a_certificate_of_another_authority(workshop: Workshop, tmp_path: Path, says: Found) -> None:
    """A whole chain, to a root of the same name with another key."""
    key, other = new_key(), Workshop(tmp_path / "other")
    chain = [other.leaf(key.public_key()), other.issuing]
    assert says(write_bundle(tmp_path / "device", chain, private_pem(key), [workshop.root])) == [Finding.UNKNOWN_ISSUER]


def test_an_expired_intermediate(workshop: Workshop, tmp_path: Path, says: Found) -> None:
    """The device's own certificate is good."""
    old = workshop.above.below("old issuing CA", start_s=-90 * DAY.total_seconds(), end_s=-60 * DAY.total_seconds())
    mistake = {"issuer": (old.certificate.subject, old.key), "sent": (old.certificate,)}
    assert says(workshop.bundle(tmp_path / "device", **mistake)) == [Finding.ISSUER_EXPIRED]


def test_of_two_intermediates_the_valid_one_counts(workshop: Workshop, tmp_path: Path, says: Found) -> None:
    """An old certificate of the same CA behind the device's does no harm."""
    assert says(workshop.bundle(tmp_path / "device", sent=(workshop.root, workshop.issuing))) == []


def test_a_ca_file_for_the_server_alone_proves_nothing(workshop: Workshop, tmp_path: Path) -> None:
    """A public CA verifies the gate's certificate; whether the gate trusts the device's CA cannot be seen from here."""
    paths = workshop.bundle(tmp_path / "device")
    assert paths.ca is not None
    paths.ca.write_bytes(pem(CA.root("a public CA").certificate))
    [chain] = [check for check in look(paths, elsewhere=tmp_path) if check.check == "chain"]
    assert (chain.says, "--mqtt" in chain.mend) == ("cannot tell", True)


def test_what_is_wrong_names_the_device_in_its_remedy(workshop: Workshop, tmp_path: Path) -> None:
    """The command can be typed as it stands."""
    paths = workshop.bundle(tmp_path / "device", begin=now() - 40 * DAY, days=30)
    [check] = [check for check in look(paths, elsewhere=tmp_path) if check.finding is Finding.EXPIRED]
    assert "--tenant acme --device car-7-tcu" in check.mend


def test_a_certificate_that_ends_soon_is_good_and_says_so(workshop: Workshop, tmp_path: Path) -> None:
    """Renewal is due at two thirds of the lifetime."""
    paths = workshop.bundle(tmp_path / "device", begin=now() - 25 * DAY, days=30)
    [check] = [check for check in look(paths, elsewhere=tmp_path) if check.check == "validity"]
    assert (check.says, "renew it soon" in check.what) == ("ok", True)


def test_time_is_an_argument(good: Paths, says: Found) -> None:
    """A year from now the same certificate has expired."""
    later = SystemClock().now_ms() + 400 * 24 * 3600 * 1000
    assert says(good, now_ms=later) == [Finding.EXPIRED]
