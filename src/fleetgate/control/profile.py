"""The profile of a device certificate: what a verified leaf must look like before it names anybody.

Decides whom a certificate speaks for. Chain, signature and validity at this moment are checks deliberately not made
here: TLS made them in the handshake. Whether the device is known, active or revoked is decided by the records.
Library verifiers accept leaves without EKU, with anyEKU, with weak keys; this check is why they do not get in.
"""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec import Struct

from fleetgate.control.records import ID_PATTERN
from fleetgate.errors import CheckFailed

MAX_VALIDITY = timedelta(days=400)  # a lost certificate ends by itself; renewal is due at two thirds of it
DevicePublicKey = EllipticCurvePublicKey | Ed25519PublicKey

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)
DEVICE_NAME = re.compile(rf"spiffe://([^/]+)/tenant/({ID_PATTERN})/device/({ID_PATTERN})")
"""The one name in a certificate, a SPIFFE id: trust domain, tenant, device id."""


class ProfileError(CheckFailed):
    """The certificate does not fit the profile; the text is one sentence that says where."""


class Issuance(Struct, frozen=True, gc=False):
    """One step of a verified chain: a certificate's serial number, and who issued it.

    `ca` is SHA-256 of the issuer's certificate (DER). `key` is that of its public key info, and `authority` that of its
    name and `key`: both stay when the certificate is renewed, and when another CA makes one for the same key. A CA is
    named for a tenant by its key; a revocation list is bound to the authority.
    """

    serial: int
    ca: bytes
    key: bytes
    authority: bytes


class CertificateIdentity(Struct, frozen=True, gc=False):
    """Whom a certificate speaks for, until `not_after_ms`. `fingerprint`: SHA-256 of its DER; `key_digest`: of its
    public key info. `issuances` are the steps of the chain that was verified, the leaf's first."""

    tenant: str
    device_id: str
    fingerprint: bytes
    key_digest: bytes
    not_after_ms: int
    issuances: tuple[Issuance, ...] = ()


def identity_of(certificate: x509.Certificate | bytes, trust_domain: str) -> CertificateIdentity:
    """The identity in a verified leaf (DER or parsed). Raises ProfileError, and nothing else, whatever the bytes."""
    try:
        leaf = x509.load_der_x509_certificate(certificate) if isinstance(certificate, bytes) else certificate
        extensions = leaf.extensions
        public_key = leaf.public_key()
        key_digest = key_digest_of(public_key)
        fingerprint = leaf.fingerprint(SHA256())
        not_after_ms = int(leaf.not_valid_after_utc.timestamp()) * 1000
        validity = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    except Exception:  # the parser's set of errors is open, and the bytes are a stranger's
        raise ProfileError("the certificate cannot be parsed") from None
    check_public_key(public_key)
    if validity > MAX_VALIDITY:
        raise ProfileError(f"the certificate is valid for more than {MAX_VALIDITY.days} days")
    _check_use(extensions)
    tenant, device_id = _spiffe_names(extensions, trust_domain)
    return CertificateIdentity(tenant, device_id, fingerprint, key_digest, not_after_ms)


def issuance_of(certificate: x509.Certificate, issuer: x509.Certificate) -> Issuance:
    """Raises ValueError for a certificate that cannot be parsed."""
    key = key_digest_of(issuer.public_key())
    return Issuance(certificate.serial_number, issuer.fingerprint(SHA256()), key, _authority(issuer, key))


def authority_of(issuer: x509.Certificate) -> bytes:
    """SHA-256 of the name and public key of a CA: 32 bytes."""
    return _authority(issuer, key_digest_of(issuer.public_key()))


def _authority(issuer: x509.Certificate, key: bytes) -> bytes:
    return hashlib.sha256(issuer.subject.public_bytes() + key).digest()


def key_digest_of(public_key: CertificatePublicKeyTypes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo in DER: 32 bytes. A MAC key is bound to it (schemas/envelope.md)."""
    return hashlib.sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def check_public_key(public_key: CertificatePublicKeyTypes) -> DevicePublicKey:
    """Raises ProfileError unless the key is on P-256 or is Ed25519."""
    match public_key:
        case Ed25519PublicKey():
            return public_key
        case EllipticCurvePublicKey() if isinstance(public_key.curve, SECP256R1):
            return public_key
        case _:
            raise ProfileError("the certificate's key is neither P-256 nor Ed25519")


def _check_use(extensions: x509.Extensions) -> None:
    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise ProfileError("the certificate is a CA certificate, not a device's")
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        raise ProfileError("the certificate's key usage does not include digitalSignature")
    if usage.key_cert_sign or usage.crl_sign:
        raise ProfileError("the certificate's key usage lets it sign certificates or revocation lists")
    purposes = _extension(extensions, x509.ExtendedKeyUsage)
    if purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise ProfileError("the certificate's extended key usage does not name clientAuth")
    if ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in purposes:
        raise ProfileError("the certificate's extended key usage allows anything")


def _spiffe_names(extensions: x509.Extensions, trust_domain: str) -> tuple[str, str]:
    names = _extension(extensions, x509.SubjectAlternativeName)
    listed = list(names) if names is not None else []
    if len(listed) != 1 or not isinstance(listed[0], x509.UniformResourceIdentifier):
        raise ProfileError("the certificate must have exactly one subject alternative name, a SPIFFE URI")
    found = DEVICE_NAME.fullmatch(listed[0].value)
    if found is None:
        raise ProfileError("the certificate's name must be spiffe://<trust-domain>/tenant/<tenant>/device/<device id>")
    if found[1] != trust_domain:
        raise ProfileError("the certificate is of another trust domain than the setting trust_domain")
    return found[2], found[3]


def _extension(extensions: x509.Extensions, kind: type[_Kind]) -> _Kind | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
