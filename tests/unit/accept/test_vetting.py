"""Who is behind a certificate: the leaf's profile, the chain that was verified, and the path where none was."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.accept.vetting import Vetting
from fleetgate.clock import SystemClock
from fleetgate.control.chain import Paths
from fleetgate.control.issuers import Issuers
from fleetgate.control.pki import Authority
from fleetgate.control.profile import ProfileError

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("pki"), "fleet.example", CLOCK)


def vetting(*bundle: x509.Certificate) -> Vetting:
    return Vetting("fleet.example", Paths(bundle), Issuers({}), CLOCK)


def device(authority: Authority) -> bytes:
    return der(authority.issue_device("acme", "car-1-tcu", generate_private_key(SECP256R1()).public_key()))


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def test_a_verified_chain_names_its_device(authority: Authority) -> None:
    """And so does a leaf alone, whose path is found in the bundle."""
    leaf = device(authority)
    rules = vetting(authority.root, authority.issuing)
    by_handshake = rules.identity(leaf, [leaf, der(authority.issuing), der(authority.root)])
    assert (by_handshake.tenant, by_handshake.device_id) == ("acme", "car-1-tcu")
    assert rules.verify(leaf) == by_handshake


@pytest.mark.parametrize("chain", [[], [b"leaf"], [b"another", b"issuer"]], ids=["none", "alone", "of another"])
def test_without_a_chain_of_its_own_a_leaf_names_nobody(authority: Authority, chain: list[bytes]) -> None:
    """A leaf that nobody vouches for does not get as far as its names."""
    with pytest.raises(ProfileError, match="vouches"):
        vetting(authority.root).identity(b"leaf", chain)


def test_a_leaf_of_another_authority_has_no_path(authority: Authority, tmp_path: Path) -> None:
    """Whatever a proxy has let through."""
    other = Authority.create(tmp_path, "fleet.example", CLOCK)
    with pytest.raises(ProfileError, match="no path"):
        vetting(authority.root, authority.issuing).verify(device(other))


@pytest.mark.parametrize("leaf", [b"", b"\x30\x00", b"-----BEGIN CERTIFICATE-----"])
def test_bytes_that_are_no_certificate_have_no_path(authority: Authority, leaf: bytes) -> None:
    """A sentence, not a traceback."""
    with pytest.raises(ProfileError, match="cannot be parsed"):
        vetting(authority.root).verify(leaf)
