"""A PKI that is not fleetgate's own, for tests: certificate authorities, their leaves and their revocation lists.

Everything is real and signed; what a test wants to be wrong it says by name. Dates are whole seconds from now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetgate.control.pki import private_pem

DOMAIN = "fleet.example"
DAY = 86_400.0
_PRIME256V1, _PRIME239V1 = (bytes.fromhex(f"06082a8648ce3d0301{last}") for last in ("07", "04"))
_USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
           "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


def spiffe(tenant: str, device: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"spiffe://{DOMAIN}/tenant/{tenant}/device/{device}")


def usage(*bits: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in bits for name in _USAGES})


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def on_an_odd_curve(ca: bytes) -> bytes:
    """The certificate (DER) with a key on prime239v1, which OpenSSL knows and `cryptography` does not; badly signed."""
    assert ca.count(_PRIME256V1) == 1
    return ca.replace(_PRIME256V1, _PRIME239V1)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def now_ms() -> int:
    return int(now().timestamp()) * 1000


@dataclass
class Leaf:
    """A device's certificate with its key; `above` is what stands behind it when it is presented."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...]

    def write(self, directory: Path, *extra: x509.Certificate) -> tuple[Path, Path]:
        """Files as `ssl` loads them, `extra` certificates behind the leaf: (certificate, key)."""
        directory.mkdir(parents=True, exist_ok=True)
        certificate, private = directory / "leaf.pem", directory / "leaf.key"
        certificate.write_bytes(pem(self.certificate, *extra, *self.above))
        private.write_bytes(private_pem(self.key))
        return certificate, private


@dataclass
class CA:
    """A certificate authority. `above` are the CAs over it, but for the root."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()
    numbers: int = field(default=0)

    @classmethod
    def root(cls, name: str = "root", **options: Any) -> Self:
        key = generate_private_key(SECP256R1())
        return cls(_ca_certificate(name, key, _name(name), key, **options), key)

    def below(self, name: str, **options: Any) -> CA:
        """An intermediate that this CA vouches for."""
        key = generate_private_key(SECP256R1())
        certificate = _ca_certificate(name, key, self.certificate.subject, self.key, **options)
        is_root = self.certificate.subject == self.certificate.issuer
        return CA(certificate, key, () if is_root else (self.certificate, *self.above))

    def cross(self, other: CA, **options: Any) -> CA:
        """`other`, its name and key, vouched for by this CA."""
        name = other.certificate.subject.rfc4514_string().removeprefix("CN=")
        certificate = _ca_certificate(name, other.key, self.certificate.subject, self.key, **options)
        return CA(certificate, other.key)

    def leaf(
        self,
        tenant: str = "acme",
        device: str = "car-1-tcu",
        *,
        key: EllipticCurvePrivateKey | None = None,
        names: Sequence[x509.GeneralName] | None = None,
        raw: x509.UnrecognizedExtension | None = None,
        ca: bool = False,
        start_s: float = -300,
        end_s: float = 30 * DAY,
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> Leaf:
        """A leaf that fits the profile, but for what is named; `raw` stands in place of the alternative names."""
        key = key or generate_private_key(SECP256R1())
        builder = _builder(_name(device[:64]), key, self.certificate.subject, self.key, start_s, end_s)
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(usage("digital_signature"), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(raw or x509.SubjectAlternativeName(names or [spiffe(tenant, device)]), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        is_root = self.certificate.subject == self.certificate.issuer
        above = () if is_root else (self.certificate, *self.above)
        return Leaf(builder.sign(self.key, SHA256()), key, above)

    def crl(
        self,
        *revoked: x509.Certificate,
        number: int | None = 0,
        this_s: float = -60,
        next_s: float = DAY,
        key: EllipticCurvePrivateKey | None = None,
        name: str = "",
        extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
        of_entry: Sequence[tuple[x509.ExtensionType, bool]] = (),
    ) -> bytes:
        """A list in PEM, with the next number unless one is given (None: without one)."""
        self.numbers += 1
        start = now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_name(name) if name else self.certificate.subject)
            .last_update(start + timedelta(seconds=this_s))
            .next_update(start + timedelta(seconds=next_s))
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number or self.numbers), critical=False)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(start)
            for extension, critical in of_entry:
                entry = entry.add_extension(extension, critical)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(key or self.key, SHA256()).public_bytes(Encoding.PEM)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name,
    key: EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: EllipticCurvePrivateKey,
    start_s: float,
    end_s: float,
) -> x509.CertificateBuilder:
    start = now()
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(start + timedelta(seconds=start_s))
        .not_valid_after(start + timedelta(seconds=end_s))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )


def _ca_certificate(
    name: str,
    key: EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: EllipticCurvePrivateKey,
    *,
    path_length: int | None = None,
    start_s: float = -DAY,
    end_s: float = 365 * DAY,
    bits: Sequence[str] = ("key_cert_sign", "crl_sign", "digital_signature"),
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> x509.Certificate:
    builder = _builder(_name(name), key, issuer, issuer_key, start_s, end_s)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
    builder = builder.add_extension(usage(*bits), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, SHA256())
