"""The certificate authority: a root, an issuing CA below it, and the certificates it gives out.

Decides names, lifetimes and uses of certificates. Whether a device may have one is decided by `control.devices`; what
the edge accepts, by `control.profile`, which reads what is written here. Private keys lie in files of mode 0600; the
root's is needed only to make another issuing CA and belongs on a disk that is not connected.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetgate.clock import Clock
from fleetgate.control.profile import MAX_VALIDITY, DevicePublicKey, check_public_key
from fleetgate.control.records import is_id
from fleetgate.control.secretfile import read_secret, write_new, write_secret
from fleetgate.errors import ConfigError, Conflict

ROOT_DAYS = 3650
ISSUING_DAYS = 1825
SERVER_DAYS = 397  # what public CAs allow; a server certificate is replaced without touching a vehicle
DEVICE_DAYS = 365
BACKDATE = timedelta(minutes=5)  # a unit whose clock is a little behind can use its new certificate at once

_TRUST_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?")  # SPIFFE ID, section 2.1
_FILES = ("root.pem", "root.key", "issuing.pem", "issuing.key")


class Authority:
    """A loaded issuing CA. Issues for one trust domain, which stands in its own certificate."""

    def __init__(
        self, root: x509.Certificate, issuing: x509.Certificate, key: EllipticCurvePrivateKey, clock: Clock
    ) -> None:
        self.root = root
        self.issuing = issuing
        self.trust_domain = _trust_domain_of(issuing)
        self._key = key
        self._clock = clock
        # Once, not for each of a hundred thousand certificates.
        self.chain_pem = issuing.public_bytes(Encoding.PEM)
        """What stands behind a leaf when it is presented: the issuing CA."""
        self.root_pem = root.public_bytes(Encoding.PEM)
        self._issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(_key_id_of(issuing))

    @classmethod
    def create(cls, directory: Path, trust_domain: str, clock: Clock) -> Authority:
        """Makes root and issuing CA and writes them. Raises Conflict if any of the files exists, else ConfigError."""
        check_trust_domain(trust_domain)
        for name in _FILES:
            if (directory / name).exists():
                raise Conflict(f"{directory / name} exists: there is a CA already; move it away to begin another")
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the directory {directory}: {error.strerror}") from None
        root_key, key = generate_private_key(SECP256R1()), generate_private_key(SECP256R1())
        now = _now(clock)
        above, below = _name(f"{trust_domain} root CA"), _name(f"{trust_domain} issuing CA")
        root = _ca(above, above, root_key, root_key, 1, trust_domain, now, ROOT_DAYS)
        issuing = _ca(below, above, key, root_key, 0, trust_domain, now, ISSUING_DAYS)
        write_secret(directory / "root.key", private_pem(root_key))
        write_secret(directory / "issuing.key", private_pem(key))
        write_new(directory / "root.pem", root.public_bytes(Encoding.PEM))
        write_new(directory / "issuing.pem", issuing.public_bytes(Encoding.PEM))
        return cls(root, issuing, key, clock)

    @classmethod
    def load(cls, directory: Path, clock: Clock) -> Authority:
        """Raises ConfigError, naming the file, where the CA is absent or its files do not belong together."""
        root = _load_certificate(directory / "root.pem")
        issuing = _load_certificate(directory / "issuing.pem")
        path = directory / "issuing.key"
        try:
            key = load_pem_private_key(read_secret(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ConfigError(f"{path} is not an unencrypted private key in PEM") from None
        if not isinstance(key, EllipticCurvePrivateKey) or key.public_key() != issuing.public_key():
            raise ConfigError(f"{path} is not the private key of {directory / 'issuing.pem'}")
        return cls(root, issuing, key, clock)

    @property
    def trust_pem(self) -> bytes:
        """The edge's trust bundle: issuing CA and root, so that a device that sends only its leaf verifies too."""
        return self.chain_pem + self.root_pem

    def issue_device(
        self, tenant: str, device_id: str, public_key: DevicePublicKey, days: int = DEVICE_DAYS
    ) -> x509.Certificate:
        """A certificate that names one device and nothing else.

        Raises ConfigError for ids outside the pattern or more than 400 days, ProfileError for another kind of key.
        """
        for field, text in (("tenant", tenant), ("device", device_id)):
            if not is_id(text):
                raise ConfigError(f"the {field} id must match [a-z0-9][a-z0-9._-]{{0,62}}")
        if not 1 <= days <= MAX_VALIDITY.days:
            raise ConfigError(f"a device certificate is valid for 1 to {MAX_VALIDITY.days} days, not {days}")
        uri = device_uri(self.trust_domain, tenant, device_id)
        builder = _builder(
            _name(device_id), self.issuing.subject, check_public_key(public_key), _now(self._clock), days
        )
        return self._leaf(builder, [x509.UniformResourceIdentifier(uri)], ExtendedKeyUsageOID.CLIENT_AUTH)

    def issue_server(self, hosts: list[str]) -> tuple[x509.Certificate, EllipticCurvePrivateKey]:
        """A certificate of a gate for these DNS names and IP addresses, with a new private key."""
        if not hosts:
            raise ConfigError("a server certificate needs at least one host name or address")
        key = generate_private_key(SECP256R1())
        builder = _builder(_name(hosts[0][:64]), self.issuing.subject, key.public_key(), _now(self._clock), SERVER_DAYS)
        return self._leaf(builder, [_host_name(host) for host in hosts], ExtendedKeyUsageOID.SERVER_AUTH), key

    def _leaf(
        self, builder: x509.CertificateBuilder, names: list[x509.GeneralName], purpose: x509.ObjectIdentifier
    ) -> x509.Certificate:
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(self._issuer, critical=False)
            .sign(self._key, SHA256())
        )


def device_uri(trust_domain: str, tenant: str, device_id: str) -> str:
    """The one name in a device's certificate, a SPIFFE id."""
    return f"spiffe://{trust_domain}/tenant/{tenant}/device/{device_id}"


def check_trust_domain(trust_domain: str) -> None:
    """Raises ConfigError for a name that cannot stand in a SPIFFE id."""
    if _TRUST_DOMAIN.fullmatch(trust_domain) is None:
        raise ConfigError(f"trust_domain {trust_domain!r} must be a lower-case host name such as fleet.example")


def private_pem(key: EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _now(clock: Clock) -> datetime:
    return datetime.fromtimestamp(clock.now_ms() // 1000, UTC)  # certificates count whole seconds


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: DevicePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    start = now - BACKDATE
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _ca(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    issuer_key: EllipticCurvePrivateKey,
    path_length: int,
    trust_domain: str,
    now: datetime,
    days: int,
) -> x509.Certificate:
    name = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        _builder(subject, issuer, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(authority, critical=False)
        .sign(issuer_key, SHA256())
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        address: IPv4Address | IPv6Address = ip_address(host)
    except ValueError:
        if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host) is None:
            raise ConfigError(f"{host!r} is neither a host name nor an IP address") from None
        return x509.DNSName(host)
    return x509.IPAddress(address)


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"there is no CA: {path} does not exist; make one with `fleetgate ca init`") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"{path} is not a certificate in PEM") from None


def _key_id_of(issuing: x509.Certificate) -> x509.SubjectKeyIdentifier:
    try:
        return issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        raise ConfigError("the issuing CA has no subject key identifier, which its certificates have to name") from None


def _trust_domain_of(issuing: x509.Certificate) -> str:
    try:
        names = issuing.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or not uris[0].startswith("spiffe://"):
        raise ConfigError("the issuing CA names no trust domain (one URI name, spiffe://<trust-domain>)")
    return uris[0].removeprefix("spiffe://")
