"""Certificate requests (PKCS #10): which public key a device, or a person for it, asks to have certified.

Decides whether a request may stand for this device: it proves possession of its key, and what it says of its own name
is true (RFC 7030, 4.2.2). Only the key is taken from it: extensions and attributes that were asked for are not looked
at, since names, lifetime and uses of the certificate are decided by `control.pki`. Whether the device may have a
certificate at all is decided by the records.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.x509.oid import NameOID

from fleetgate.control.pki import device_uri
from fleetgate.control.profile import DevicePublicKey, ProfileError, check_public_key
from fleetgate.errors import CheckFailed

MAX_CSR_BYTES = 16 * 1024  # one of P-256 has 400 bytes; what is larger carries what nobody asked for
_PEM = b"-----BEGIN "


class CsrError(CheckFailed):
    """The request cannot be granted as it stands; the text is one sentence that says why."""


def public_key_of(request: bytes, tenant: str, device_id: str, trust_domain: str) -> DevicePublicKey:
    """The key of a request in PEM or DER. Raises CsrError, and nothing else, whatever the bytes."""
    if len(request) > MAX_CSR_BYTES:
        raise CsrError(f"the certificate request is larger than {MAX_CSR_BYTES} bytes")
    try:
        pem = _PEM in request
        csr = x509.load_pem_x509_csr(request) if pem else x509.load_der_x509_csr(request)
        public_key = csr.public_key()
        common_names = [name.value for name in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        names = _alternative_names(csr)
    except Exception:  # the parser's set of errors is open, and the bytes are a stranger's
        raise CsrError("the certificate request cannot be parsed: it must be a PKCS #10 in PEM or DER") from None
    try:
        key = check_public_key(public_key)  # before the signature: that of a huge key is work
    except ProfileError:
        raise CsrError("the key of the certificate request is neither P-256 nor Ed25519") from None
    if not _signed(csr):
        raise CsrError("the certificate request is not signed with its own key")
    if any(name != device_id for name in common_names):
        raise CsrError(f"the subject of the certificate request is not the device's: CN must be {device_id} or absent")
    uri = device_uri(trust_domain, tenant, device_id)
    if any(name != x509.UniformResourceIdentifier(uri) for name in names):
        raise CsrError(f"the subject alternative name of the certificate request must be URI:{uri} or absent")
    return key


def _alternative_names(csr: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _signed(csr: x509.CertificateSigningRequest) -> bool:
    try:
        return csr.is_signature_valid
    except Exception:  # an algorithm that this build does not have
        return False
