"""A MAC key sealed for one device: a JWE that only the holder of a private key opens (schemas/renewal.md, section 3).

Decides whom it is sealed for: the agreement key that the certificate request names, under the request's own signature,
else the request's P-256 key itself. Ed25519 cannot agree on keys, so such a request has to name one. Who may have a MAC
key at all is decided by `control.renewal`; why it is sealed, by docs/adr/0007-renewal.md.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key
from joserfc import jwe
from joserfc.jwk import ECKey, OKPKey

from fleetgate.errors import CheckFailed

AGREEMENT_KEY = x509.ObjectIdentifier("2.25.147609419007914581951644633700549689093")
"""The extension of a request that names another key to seal for: its value is the SubjectPublicKeyInfo, in DER, of an
X25519 key. Of the arc for UUIDs (ITU-T X.667), which needs no registration."""

_ALGORITHM, _ENCRYPTION = "ECDH-ES", "A256GCM"

Recipient = EllipticCurvePublicKey | X25519PublicKey


class CannotSeal(CheckFailed):
    """The request has no key to seal for; the text is one sentence for its sender."""


def recipient_of(request: x509.CertificateSigningRequest) -> Recipient:
    """Raises CannotSeal. The request's signature, which binds the agreement key, is checked by `control.csr`."""
    try:
        named = request.extensions.get_extension_for_oid(AGREEMENT_KEY).value
    except x509.ExtensionNotFound:
        own = request.public_key()
        if isinstance(own, EllipticCurvePublicKey) and isinstance(own.curve, SECP256R1):
            return own
        raise CannotSeal(
            "the key of the request cannot agree on keys: name an X25519 key in the extension "
            f"{AGREEMENT_KEY.dotted_string}"
        ) from None
    try:
        assert isinstance(named, x509.UnrecognizedExtension)  # no library knows it
        key = load_der_public_key(named.value)
        if isinstance(key, X25519PublicKey):
            X25519PrivateKey.generate().exchange(key)  # fails for a point of low order, as sealing would
            return key
    except (ValueError, UnsupportedAlgorithm):
        pass
    raise CannotSeal(f"the extension {AGREEMENT_KEY.dotted_string} must hold an X25519 public key in DER")


def seal(mac_key: bytes, recipient: Recipient) -> str:
    """The compact serialization, ECDH-ES with A256GCM; another one at each call."""
    der = recipient.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = OKPKey.import_key(der) if isinstance(recipient, X25519PublicKey) else ECKey.import_key(der)
    header = {"alg": _ALGORITHM, "enc": _ENCRYPTION}
    return jwe.encrypt_compact(header, mac_key, key, algorithms=[_ALGORITHM, _ENCRYPTION])
