"""A device's side of a renewal, as the tests hold it: its request, and what it does with the answer.

Opens the JWE with its own few lines, written from RFC 7516 and RFC 7518 (4.6) with the primitives alone, so that a
mistake of the library which seals it does not agree with itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

AGREEMENT_KEY = x509.ObjectIdentifier("2.25.147609419007914581951644633700549689093")  # as schemas/renewal.md has it

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
Opener = ec.EllipticCurvePrivateKey | x25519.X25519PrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: Key | Opener) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def request(
    key: Key | rsa.RSAPrivateKey,
    name: str | None = None,
    uri: str | None = None,
    agreement: bytes | None = None,
    encoding: Encoding = Encoding.PEM,
) -> bytes:
    """A certificate request; without names as a device may send it. `agreement` is the value of that extension."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if uri is not None:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    if agreement is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(AGREEMENT_KEY, agreement), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key, digest).public_bytes(encoding)


def opened(jwe: str, key: Opener) -> bytes:
    """What was sealed for `key`. Raises InvalidTag for any other key."""
    protected, wrapped, iv, sealed, tag = jwe.split(".")
    header = json.loads(_decoded(protected))
    assert (header["alg"], header["enc"], wrapped) == ("ECDH-ES", "A256GCM", "")
    shared = _shared(header["epk"], key)
    parties = b"".join(_lp(_decoded(header.get(name, ""))) for name in ("apu", "apv"))
    info = _lp(b"A256GCM") + parties + (256).to_bytes(4, "big")
    derived = hashlib.sha256(b"\x00\x00\x00\x01" + shared + info).digest()
    return AESGCM(derived).decrypt(_decoded(iv), _decoded(sealed) + _decoded(tag), protected.encode())


def _shared(epk: dict[str, Any], key: Opener) -> bytes:
    if isinstance(key, x25519.X25519PrivateKey):
        assert (epk["kty"], epk["crv"]) == ("OKP", "X25519")
        return key.exchange(x25519.X25519PublicKey.from_public_bytes(_decoded(epk["x"])))
    assert (epk["kty"], epk["crv"]) == ("EC", "P-256")
    x, y = (int.from_bytes(_decoded(epk[name]), "big") for name in ("x", "y"))
    return key.exchange(ec.ECDH(), ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key())


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _lp(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
