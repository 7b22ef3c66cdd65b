"""Who is behind a certificate: the leaf's profile, the chain that was verified, and the path where none was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from tests.authorities import CA, DAY, der, now_ms, on_an_odd_curve

from fleetgate.accept.vetting import NobodyKnows, Vetting
from fleetgate.clock import SystemClock
from fleetgate.control.chain import Paths
from fleetgate.control.issuers import Issuers
from fleetgate.control.pki import Authority
from fleetgate.control.profile import ProfileError, key_digest_of
from fleetgate.control.revocation import RevocationLists, read_list
from fleetgate.judge import Flag, Reason

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("pki"), "fleet.example", CLOCK)


def vetting(*bundle: x509.Certificate) -> Vetting:
    return Vetting("fleet.example", Paths(bundle), Issuers({}), CLOCK)


def device(authority: Authority) -> bytes:
    return der(authority.issue_device("acme", "car-1-tcu", generate_private_key(SECP256R1()).public_key()))


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


@pytest.mark.parametrize("place", [1, 2], ids=["that issued the leaf", "above it"])
@pytest.mark.parametrize("ca", [lambda good: on_an_odd_curve(good), lambda good: b"garbage"], ids=["odd", "garbage"])
def test_a_ca_that_openssl_can_read_and_we_cannot(
    authority: Authority, place: int, ca: Callable[[bytes], bytes]
) -> None:
    """A peer chose it: a sentence, no traceback."""
    leaf = device(authority)
    chain = [leaf, der(authority.issuing), der(authority.root)]
    chain[place] = ca(chain[place])
    with pytest.raises(ProfileError, match="a CA certificate of the chain cannot be read"):
        vetting(authority.root, authority.issuing).identity(leaf, chain)


ROOT = CA.root()
ISSUING = ROOT.below("issuing")


def external(of_tenant: dict[str, CA] | None = None, *lists: bytes) -> Vetting:
    """Rules of an edge that trusts an external PKI."""
    named = {tenant: frozenset({key_digest_of(ca.key.public_key())}) for tenant, ca in (of_tenant or {}).items()}
    rules = Vetting("fleet.example", Paths([ROOT.certificate, ISSUING.certificate]), Issuers(named), CLOCK)
    bundle = [ROOT.certificate, ISSUING.certificate]
    rules.lists = RevocationLists([read_list(content, bundle, now_ms()) for content in lists], 3_600_000)
    return rules


def test_a_leaf_has_its_path_whoever_verified_it() -> None:
    """By handshake or by the gate: issuers and lists are asked about the same steps."""
    leaf = der(ISSUING.leaf().certificate)
    rules = external()
    chain = [leaf, der(ISSUING.certificate), der(ROOT.certificate)]
    assert rules.verify(leaf).issuances == rules.identity(leaf, chain).issuances
    assert len(rules.verify(leaf).issuances) == 2


def test_a_handshake_that_ends_at_an_intermediate_does_not_hide_the_cas_above_it() -> None:
    """The intermediate is in the bundle, so OpenSSL stops there: issuers and lists still see its root."""
    leaf = ISSUING.leaf("globex").certificate
    chain = [der(leaf), der(ISSUING.certificate)]
    with pytest.raises(ProfileError, match="another tenant"):
        external({"acme": ROOT}).identity(der(leaf), chain)
    rules = external(None, ROOT.crl(ISSUING.certificate))
    assert rules.refusal(rules.identity(der(leaf), chain)) is Reason.REVOKED


@pytest.mark.parametrize("name", ["acme CA", "another name"])
def test_a_key_named_for_one_tenant_does_not_speak_for_another_through_a_cross_certificate(name: str) -> None:
    """An unnamed CA of the bundle has vouched for the key of acme's CA, under its name or another."""
    acme, industry = CA.root("acme CA"), CA.root("industry root")
    cross = industry.cross(CA(CA.root(name).certificate, acme.key))
    rules = Vetting(
        "fleet.example",
        Paths([acme.certificate, industry.certificate]),
        Issuers({"acme": frozenset({key_digest_of(acme.key.public_key())})}),
        CLOCK,
    )
    for tenant in ("acme", "globex"):
        leaf = der(cross.leaf(tenant).certificate)
        chain = [leaf, der(cross.certificate), der(industry.certificate)]
        if tenant == "acme":
            assert rules.identity(leaf, chain).tenant == "acme"
        else:
            with pytest.raises(ProfileError, match="another tenant"):
                rules.identity(leaf, chain)


def test_what_the_lists_say_is_asked_anew() -> None:
    """An identity stays what it is; good, revoked and unknown are said of it as the lists are now."""
    leaf = ISSUING.leaf().certificate
    rules = external()
    identity = rules.verify(der(leaf))
    assert rules.refusal(identity) is None
    rules.lists = external(None, ISSUING.crl(leaf)).lists
    assert rules.refusal(identity) is Reason.REVOKED
    rules.lists = external(None, ISSUING.crl(leaf, this_s=-DAY, next_s=-10)).lists
    assert (rules.refusal(identity), rules.flags(identity)) == (Reason.REVOKED, Flag.STALE_REVOCATION)
    rules.lists = external(None, ISSUING.crl(leaf, this_s=-2 * DAY, next_s=-DAY)).lists
    with pytest.raises(NobodyKnows):
        rules.refusal(identity)


def test_an_issuer_that_is_named_for_another_tenant_speaks_no_more() -> None:
    """For whoever comes, and for who is there."""
    leaf = der(ISSUING.leaf("acme").certificate)
    rules = external({"acme": ISSUING})
    identity = rules.verify(leaf)
    rules.issuers = external({"globex": ISSUING}).issuers
    for ask in (lambda: rules.verify(leaf), lambda: rules.refusal(identity)):
        with pytest.raises(ProfileError, match="another tenant"):
            ask()
