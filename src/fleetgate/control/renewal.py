"""Renewal by the device itself: what the records allow, and what they show about who asks (docs/adr/0007-renewal.md).

Decides from the records alone; of the edge it takes whose certificate was verified, and nothing else. A credential is
renewed once: the same key again is a lost answer and gets the same certificate again, another key is the sign of a
clone, because the device keeps its new key before it asks. Sockets, threads and limits are `renewalservice`'s; how a
credential is made is `credentials`'; how the MAC key is sealed, `sealing`'s.
"""

from __future__ import annotations

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Row, select

from fleetgate.control.cases import CLONE_SIGN
from fleetgate.control.credentials import issue
from fleetgate.control.csr import MAX_CSR_BYTES, CsrError, public_key_of
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.profile import DevicePublicKey, key_digest_of
from fleetgate.control.quarantine import quarantine_for
from fleetgate.control.records import CredentialStatus, DeviceState, DeviceStatus
from fleetgate.control.renewalform import Answer, AskRenewal, NotRenewed, Refusal, Renewed
from fleetgate.control.roster import device_is
from fleetgate.control.schema import credentials, devices
from fleetgate.control.sealing import CannotSeal, Recipient, recipient_of, seal
from fleetgate.control.store import RENEWAL, Write
from fleetgate.judge.keys import derive_mac_key

ACTOR = "signer"
LATER_SECONDS = 3600
"""When a device in quarantine, or suspended, may ask again: a person decides about it meanwhile."""

_PEM, _DER = b"-----BEGIN ", b"\x30"  # how each begins; base64 of DER begins with M
_DAY_MS = 24 * 3600 * 1000


class Refused(Exception):
    """Nothing was changed; the text is one sentence without secrets."""

    def __init__(self, refusal: Refusal, why: str) -> None:
        super().__init__(why)
        self.refusal = refusal


def renew(write: Write, authority: Authority, keyring: Keyring, policy_version: str, ask: AskRenewal) -> Answer:
    """Answers one question as part of the transaction `write`, which is to be committed. Raises Refused."""
    _check_device(write, ask)
    presented = _presented(write, ask)
    public_key, recipient = _requested(ask, authority.trust_domain)
    key_digest = key_digest_of(public_key)
    child = _renewed_from(write, presented)
    if child is not None:
        if child.status == CredentialStatus.REVOKED:
            raise Refused(Refusal.REVOKED, "what this credential was renewed to is revoked")
        if child.key_digest != key_digest:
            return _clone_sign(write, policy_version, ask, child, key_digest)
        if child.status != CredentialStatus.ACTIVE:
            raise Refused(Refusal.SUPERSEDED, f"what this credential was renewed to is {child.status} itself")
        return _again(write, child, authority, keyring, recipient)
    if presented.status != CredentialStatus.ACTIVE:
        raise Refused(Refusal.SUPERSEDED, "the device was enrolled anew, or its unit replaced, since")
    if _had_before(write, ask, key_digest):
        raise Refused(Refusal.CSR, "the device had this key before: make a new one for each renewal")
    days = max(1, (presented.not_after_ms - presented.not_before_ms) // _DAY_MS)
    issued = issue(
        write, authority, keyring, ask.tenant, ask.device_id, public_key, days, parent=presented.credential_id
    )
    facts = {"fingerprint": issued.fingerprint.hex(), "parent": ask.fingerprint, "kid": issued.kid}
    write.record(RENEWAL, ask.tenant, ask.device_id, facts)
    return _sealed(issued.certificate, issued.kid, issued.mac_key, authority, recipient)


def _check_device(write: Write, ask: AskRenewal) -> None:
    device = write.row(select(devices).where(device_is(devices, ask.tenant, ask.device_id)))
    if device is None:
        raise Refused(Refusal.UNKNOWN, "there is no such device")
    if device.status == DeviceStatus.BANNED or device.state == DeviceState.BANNED:
        raise Refused(Refusal.BANNED, "the device is banned")
    if device.status == DeviceStatus.SUSPENDED or device.state == DeviceState.QUARANTINED:
        raise Refused(Refusal.LATER, "the device is suspended or in quarantine")
    if device.status != DeviceStatus.ACTIVE:
        raise Refused(Refusal.UNKNOWN, f"the device is {device.status}")


def _presented(write: Write, ask: AskRenewal) -> Row[Any]:
    """The record of the certificate that TLS has verified: active, or a former one whose answer may have got lost."""
    of_certificate = credentials.c.fingerprint == bytes.fromhex(ask.fingerprint)
    found = write.row(select(credentials).where(device_is(credentials, ask.tenant, ask.device_id), of_certificate))
    if found is None:
        raise Refused(Refusal.UNKNOWN, "the records do not have this certificate of the device")
    if found.status == CredentialStatus.REVOKED:
        raise Refused(Refusal.REVOKED, "the credential is revoked")
    if found.not_after_ms < write.now_ms:
        raise Refused(Refusal.EXPIRED, "the certificate has expired: enrol the device anew")
    return found


def _requested(ask: AskRenewal, trust_domain: str) -> tuple[DevicePublicKey, Recipient]:
    try:
        request = _pkcs10(ask.csr)
        # Read once: bytes that are one request in DER and hold another in PEM would otherwise be two, and whoever has a
        # copy of a device's request would have its MAC key sealed for himself.
        pem = request.public_bytes(Encoding.PEM)
        return public_key_of(pem, ask.tenant, ask.device_id, trust_domain), recipient_of(request)
    except (CsrError, CannotSeal) as error:
        raise Refused(Refusal.CSR, str(error)) from None


def _pkcs10(csr: bytes) -> x509.CertificateSigningRequest:
    """PEM or DER: what EST sends is base64 of DER, in lines or not (RFC 8951)."""
    if len(csr) > MAX_CSR_BYTES:
        raise CsrError(f"the certificate request is larger than {MAX_CSR_BYTES} bytes")
    try:
        if csr.startswith(_PEM):
            return x509.load_pem_x509_csr(csr)
        der = csr if csr.startswith(_DER) else base64.b64decode(b"".join(csr.split()), validate=True)
        return x509.load_der_x509_csr(der)
    except Exception:  # the parser's set of errors is open (InvalidVersion is no ValueError)
        raise CsrError("the certificate request is neither PEM nor base64 of DER, or it is no PKCS #10") from None


def _renewed_from(write: Write, parent: Row[Any]) -> Row[Any] | None:
    of_device = device_is(credentials, parent.tenant, parent.device_id)
    return write.row(select(credentials).where(of_device, credentials.c.parent == parent.credential_id))


def _had_before(write: Write, ask: AskRenewal, key_digest: bytes) -> bool:
    of_device = device_is(credentials, ask.tenant, ask.device_id)
    return write.row(select(credentials).where(of_device, credentials.c.key_digest == key_digest)) is not None


def _again(write: Write, child: Row[Any], authority: Authority, keyring: Keyring, recipient: Recipient) -> Answer:
    """The answer got lost: the same certificate and MAC key, sealed anew."""
    # Where its root was withdrawn meanwhile, under another: the gate takes every root it has for this credential.
    kid = child.kid if keyring.root(child.kid) is not None else keyring.issuing_kid(write.now_ms)
    root = keyring.root(kid)
    assert root is not None
    mac_key = derive_mac_key(root, child.tenant, child.device_id, child.key_digest)
    return _sealed(child.certificate.encode(), kid, mac_key, authority, recipient)


def _sealed(leaf: bytes, kid: int, mac_key: bytes, authority: Authority, recipient: Recipient) -> Renewed:
    return Renewed((leaf + authority.chain_pem).decode(), kid, seal(mac_key, recipient))


def _clone_sign(write: Write, policy_version: str, ask: AskRenewal, child: Row[Any], key_digest: bytes) -> NotRenewed:
    """Two keys from one parent: its private key is in two places. Which one is the vehicle's, a person finds out."""
    detail = {
        "presented": ask.fingerprint,
        "renewed_to": child.fingerprint.hex(),
        "asked_with_key": key_digest.hex(),
    }
    quarantine_for(write, ask.tenant, ask.device_id, CLONE_SIGN, detail, policy_version)
    return NotRenewed(
        Refusal.LATER, f"the credential {ask.fingerprint} was renewed with another key before", LATER_SECONDS
    )
