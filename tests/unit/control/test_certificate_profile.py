"""The profile check and the certificates that the authority gives out; each hostile leaf by its name."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetgate.clock import SystemClock
from fleetgate.control.pki import Authority, private_pem
from fleetgate.control.profile import CertificateIdentity, ProfileError, identity_of, key_digest_of
from fleetgate.errors import ConfigError, Conflict

DOMAIN = "fleet.example"
GOOD = f"spiffe://{DOMAIN}/tenant/acme/device/car-tcu"
SIGNER = ec.generate_private_key(ec.SECP256R1())
CLIENT, SERVER, ANY = (
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def usage(**bits: bool) -> x509.KeyUsage:
    names = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    all_names = (*names, "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(**{name: bits.get(name, False) for name in all_names})


def leaf(
    *,
    names: Sequence[x509.GeneralName] | None = (uri(GOOD),),
    purposes: Sequence[x509.ObjectIdentifier] | None = (CLIENT,),
    ca: bool | None = False,
    key_usage: x509.KeyUsage | None = usage(digital_signature=True),  # noqa: B008  immutable
    key: Any = SIGNER,
    days: float = 400,
) -> bytes:
    """The DER of a leaf that fits the profile, but for what is named."""
    start = datetime.now(UTC).replace(microsecond=0)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))
    extensions: list[x509.ExtensionType | None] = [
        x509.SubjectAlternativeName(names) if names is not None else None,
        x509.ExtendedKeyUsage(purposes) if purposes is not None else None,
        x509.BasicConstraints(ca=ca, path_length=None) if ca is not None else None,
        key_usage,
    ]
    for extension in extensions:
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
    return builder.sign(SIGNER, SHA256()).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    "changed",
    [{}, {"ca": None}, {"purposes": (SERVER, CLIENT)}, {"key": ed25519.Ed25519PrivateKey.generate()}],
    ids=["as issued", "no basic constraints", "server use too", "Ed25519"],
)
def test_fitting_leaf_names_its_device(changed: dict[str, Any]) -> None:
    """A leaf inside the profile gives tenant and device of its one SPIFFE name."""
    identity = identity_of(leaf(**changed), DOMAIN)
    assert (identity.tenant, identity.device_id) == ("acme", "car-tcu")


HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "no names": ({"names": None}, "exactly one"),
    "two SPIFFE names": ({"names": (uri(GOOD), uri(GOOD.replace("car", "bus")))}, "exactly one"),
    "a DNS name beside": ({"names": (uri(GOOD), x509.DNSName("gate.example"))}, "exactly one"),
    "a DNS name instead": ({"names": (x509.DNSName("gate.example"),)}, "exactly one"),
    "another scheme": ({"names": (uri(GOOD.replace("spiffe", "https")),)}, "spiffe://"),
    "another trust domain": ({"names": (uri(GOOD.replace(DOMAIN, "evil.example")),)}, "trust domain"),
    "trust domain as a prefix": ({"names": (uri(GOOD.replace(DOMAIN, DOMAIN + ".evil")),)}, "trust domain"),
    "trust domain behind a user": ({"names": (uri(GOOD.replace(DOMAIN, "x@" + DOMAIN)),)}, "trust domain"),
    "no device": ({"names": (uri(f"spiffe://{DOMAIN}/tenant/acme"),)}, "spiffe://"),
    "a longer path": ({"names": (uri(GOOD + "/extra"),)}, "spiffe://"),
    "a trailing slash": ({"names": (uri(GOOD + "/"),)}, "spiffe://"),
    "a query": ({"names": (uri(GOOD + "?x"),)}, "spiffe://"),
    "a trailing newline": ({"names": (uri(GOOD + "\n"),)}, "spiffe://"),
    "NUL in the device": ({"names": (uri(GOOD + "\0.evil"),)}, "spiffe://"),
    "percent escapes": ({"names": (uri(GOOD.replace("car", "%63ar")),)}, "spiffe://"),
    "upper case": ({"names": (uri(GOOD.replace("acme", "ACME")),)}, "spiffe://"),
    "dots as tenant": ({"names": (uri(GOOD.replace("acme", "..")),)}, "spiffe://"),
    "64 characters": ({"names": (uri(GOOD.replace("car-tcu", "a" * 64)),)}, "spiffe://"),
    "no use named": ({"purposes": None}, "clientAuth"),
    "a server's use": ({"purposes": (SERVER,)}, "clientAuth"),
    "any use": ({"purposes": (ANY,)}, "clientAuth"),
    "any use beside": ({"purposes": (CLIENT, ANY)}, "allows anything"),
    "a CA as leaf": ({"ca": True}, "CA certificate"),
    "no key usage": ({"key_usage": None}, "digitalSignature"),
    "only key agreement": ({"key_usage": usage(key_agreement=True)}, "digitalSignature"),
    "may sign certificates": ({"key_usage": usage(digital_signature=True, key_cert_sign=True)}, "sign"),
    "P-384": ({"key": ec.generate_private_key(ec.SECP384R1())}, "P-256"),
    "secp256k1": ({"key": ec.generate_private_key(ec.SECP256K1())}, "P-256"),
    "RSA": ({"key": rsa.generate_private_key(65537, 2048)}, "P-256"),
    "valid for too long": ({"days": 400 + 1 / 86400}, "400 days"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_leaf_outside_the_profile_names_nobody(name: str) -> None:
    """A leaf that chain verification alone would accept is refused, with a sentence that says where."""
    changed, says = HOSTILE[name]
    with pytest.raises(ProfileError, match=says):
        identity_of(leaf(**changed), DOMAIN)


VALID = leaf()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=8), st.booleans())
def test_damaged_certificate_raises_only_profile_error(at: int, patch: bytes, cut: bool) -> None:
    """Whatever stands in the DER, the check answers with an identity or with ProfileError."""
    damaged = VALID[:at] + patch + (b"" if cut else VALID[at + len(patch) :])
    with contextlib.suppress(ProfileError):
        assert isinstance(identity_of(damaged, DOMAIN), CertificateIdentity)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_only_profile_error(data: bytes) -> None:
    """Bytes that are no certificate at all are refused the same way."""
    with pytest.raises(ProfileError):
        identity_of(data, DOMAIN)


def test_issued_device_certificate_fits_the_profile(authority: Authority) -> None:
    """What the authority issues, the edge accepts, at the longest lifetime too."""
    public_key = SIGNER.public_key()
    certificate = authority.issue_device("acme", "car-tcu", public_key, 400)
    assert identity_of(certificate, DOMAIN) == CertificateIdentity(
        "acme",
        "car-tcu",
        certificate.fingerprint(SHA256()),
        key_digest_of(public_key),
        int(certificate.not_valid_after_utc.timestamp()) * 1000,
    )


@pytest.mark.parametrize(("tenant", "device"), [("Acme", "d"), ("acme", ""), ("acme", "a/b"), ("acme", "d\n")])
def test_authority_issues_no_name_outside_the_pattern(authority: Authority, tenant: str, device: str) -> None:
    """An id that could be read as something else in a SPIFFE name never gets a certificate."""
    with pytest.raises(ConfigError, match="must match"):
        authority.issue_device(tenant, device, SIGNER.public_key())


@pytest.mark.parametrize("days", [0, -1, 401])
def test_authority_issues_no_lifetime_outside_the_profile(authority: Authority, days: int) -> None:
    """A lifetime that the edge would refuse is refused at issuing."""
    with pytest.raises(ConfigError, match="400 days"):
        authority.issue_device("acme", "d", SIGNER.public_key(), days)


def test_authority_issues_for_no_weak_key(authority: Authority) -> None:
    """A device that brings an RSA key gets no certificate."""
    with pytest.raises(ProfileError, match="P-256"):
        authority.issue_device("acme", "d", rsa.generate_private_key(65537, 2048).public_key())  # type: ignore[arg-type]


def test_server_certificate_is_no_device(authority: Authority) -> None:
    """The gate's own certificate cannot be used to speak for a device."""
    certificate, _ = authority.issue_server(["localhost", "::1"])
    with pytest.raises(ProfileError):
        identity_of(certificate, DOMAIN)


def test_issued_certificates_meet_in_a_mutual_handshake(authority: Authority, tmp_path: Path) -> None:
    """Gate and device verify each other with what they are given; the device may send its leaf alone."""
    server_certificate, server_key = authority.issue_server(["localhost"])
    device_key = ec.generate_private_key(ec.SECP256R1())
    device = authority.issue_device("acme", "car-tcu", device_key.public_key())
    (tmp_path / "server").write_bytes(
        server_certificate.public_bytes(Encoding.PEM) + authority.chain_pem + private_pem(server_key)
    )
    (tmp_path / "device").write_bytes(device.public_bytes(Encoding.PEM) + private_pem(device_key))
    gate = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    gate.load_cert_chain(tmp_path / "server")
    gate.load_verify_locations(cadata=authority.trust_pem.decode())
    gate.verify_mode = ssl.CERT_REQUIRED
    agent = ssl.create_default_context(cadata=authority.root_pem.decode())
    agent.load_cert_chain(tmp_path / "device")
    assert identity_of(shake_hands(gate, agent), DOMAIN).device_id == "car-tcu"


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """A handshake in memory; returns the client's certificate as the server verified it, DER."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (server.wrap_bio(up, down, server_side=True), client.wrap_bio(down, up, server_hostname="localhost"))
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    certificate = ends[0].getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def test_ca_is_read_back_with_its_trust_domain(tmp_path: Path) -> None:
    """A CA that was made is the one that is loaded."""
    made = Authority.create(tmp_path, "cars.example", SystemClock())
    loaded = Authority.load(tmp_path, SystemClock())
    assert (loaded.trust_domain, loaded.trust_pem) == ("cars.example", made.trust_pem)


def test_existing_ca_is_never_overwritten(tmp_path: Path) -> None:
    """A second CA in the same place is refused before any file changes."""
    Authority.create(tmp_path, DOMAIN, SystemClock())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Conflict):
        Authority.create(tmp_path, DOMAIN, SystemClock())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_ca_keys_are_closed_to_others(tmp_path: Path) -> None:
    """Private keys are written with mode 0600, and one that was opened to others is not used."""
    Authority.create(tmp_path, DOMAIN, SystemClock())
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*.key")} == {
        "root.key": 0o600,
        "issuing.key": 0o600,
    }
    (tmp_path / "issuing.key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        Authority.load(tmp_path, SystemClock())


def test_key_of_another_ca_is_refused(tmp_path: Path) -> None:
    """An issuing key that does not belong to its certificate is found at loading, not by the first vehicle."""
    for name in ("a", "b"):
        Authority.create(tmp_path / name, DOMAIN, SystemClock())
    (tmp_path / "b" / "issuing.key").replace(tmp_path / "a" / "issuing.key")
    with pytest.raises(ConfigError, match="not the private key"):
        Authority.load(tmp_path / "a", SystemClock())


@pytest.mark.parametrize("domain", ["", "Fleet.example", "fleet/example", "-x", "a b", "x" * 256])
def test_trust_domain_that_fits_no_spiffe_name_is_refused(tmp_path: Path, domain: str) -> None:
    """A trust domain is a lower-case host name."""
    with pytest.raises(ConfigError, match="trust_domain"):
        Authority.create(tmp_path, domain, SystemClock())
