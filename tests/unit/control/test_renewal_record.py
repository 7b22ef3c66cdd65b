"""Renewal on record: what a device may have, what it may not, and what two keys from one parent mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select, update
from tests.renewing import AGREEMENT_KEY, new_key, opened, request, spki
from tests.unit.control.conftest import Gate

from fleetgate.control.cases import list_cases
from fleetgate.control.devices import Enrolment, revoke
from fleetgate.control.profile import identity_of
from fleetgate.control.quarantine import decide
from fleetgate.control.records import CredentialStatus, DeviceState, DeviceStatus
from fleetgate.control.renewal import ACTOR, Refused, renew
from fleetgate.control.renewalform import Answer, AskRenewal, NotRenewed, Refusal, Renewed
from fleetgate.control.schema import audit, credentials, devices
from fleetgate.control.states import Classification, Decision
from fleetgate.judge.keys import derive_mac_key

URI = "spiffe://fleet.example/tenant/acme/device/car-tcu"


def fingerprint(pem: bytes | str) -> str:
    return x509.load_pem_x509_certificate(pem.encode() if isinstance(pem, str) else pem).fingerprint(SHA256()).hex()


def ask(gate: Gate, presented: bytes | str, csr: bytes, tenant: str = "acme") -> Answer:
    """As the edge asks for the device whose certificate is `presented`."""
    with gate.store.write(ACTOR) as write:
        asked = AskRenewal(tenant, "car-tcu", fingerprint(presented), csr)
        return renew(write, gate.authority, gate.keyring, "7", asked)


def renewed(gate: Gate, presented: bytes | str, csr: bytes) -> Renewed:
    answer = ask(gate, presented, csr)
    assert isinstance(answer, Renewed)
    return answer


def refusal(gate: Gate, presented: bytes | str, csr: bytes) -> Refusal:
    """Whether it changed something (a clone sign does) or not."""
    try:
        answer = ask(gate, presented, csr)
    except Refused as refused:
        return refused.refusal
    assert isinstance(answer, NotRenewed)
    return answer.refused


def statuses(gate: Gate) -> list[str]:
    return [row.status for row in gate.store.rows(select(credentials).order_by(credentials.c.credential_id))]


def actions(gate: Gate) -> list[str]:
    return [row.action for row in gate.store.rows(select(audit).order_by(audit.c.place))]


def mac_key_of(gate: Gate, kid: int, certificate: str) -> bytes:
    """What the gate will verify this certificate's messages with."""
    leaf = x509.load_pem_x509_certificate(certificate.encode())
    root = gate.keyring.root(kid)
    assert root is not None
    return derive_mac_key(root, "acme", "car-tcu", identity_of(leaf, "fleet.example").key_digest)


@pytest.fixture
def enrolled(gate: Gate) -> Enrolment:
    return gate.enrol()


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
def test_a_device_renews_its_certificate(gate: Gate, enrolled: Enrolment, encoding: Encoding) -> None:
    """The new one is of its new key, as long as the former; its MAC key opens with that key alone."""
    key = new_key()
    answer = renewed(gate, enrolled.certificate, request(key, "car-tcu", URI, encoding=encoding))
    leaf, issuing = x509.load_pem_x509_certificates(answer.certificate.encode())
    leaf.verify_directly_issued_by(issuing)
    before = x509.load_pem_x509_certificate(enrolled.certificate)
    assert leaf.public_key() == key.public_key()
    assert (
        leaf.not_valid_after_utc - leaf.not_valid_before_utc == before.not_valid_after_utc - before.not_valid_before_utc
    )
    assert identity_of(leaf, "fleet.example").device_id == "car-tcu"
    assert opened(answer.mac_key, key) == mac_key_of(gate, answer.kid, answer.certificate)
    with pytest.raises(InvalidTag):
        opened(answer.mac_key, new_key())
    assert statuses(gate) == [CredentialStatus.FORMER, CredentialStatus.ACTIVE]


def test_each_signature_has_its_entry_in_the_audit(gate: Gate, enrolled: Enrolment) -> None:
    """With both certificates and the key id, and no key in it."""
    answer = renewed(gate, enrolled.certificate, request(new_key()))
    [entry] = gate.store.rows(select(audit).where(audit.c.action == "renew"))
    assert (entry.actor, entry.object) == (ACTOR, "device/car-tcu")
    assert json.loads(entry.detail) == {
        "fingerprint": fingerprint(answer.certificate),
        "parent": fingerprint(enrolled.certificate),
        "kid": answer.kid,
    }


def test_an_ed25519_device_names_a_key_to_seal_for(gate: Gate, enrolled: Enrolment) -> None:
    """In its request, under its signature; the MAC key is that of its Ed25519 key all the same."""
    key, agreement = ed25519.Ed25519PrivateKey.generate(), x25519.X25519PrivateKey.generate()
    answer = renewed(gate, enrolled.certificate, request(key, agreement=spki(agreement)))
    assert x509.load_pem_x509_certificate(answer.certificate.encode()).public_key() == key.public_key()
    assert opened(answer.mac_key, agreement) == mac_key_of(gate, answer.kid, answer.certificate)


def test_the_same_key_again_gets_the_same_certificate(gate: Gate, enrolled: Enrolment) -> None:
    """The answer was lost: nothing is signed twice, and the MAC key is sealed for whom this request names."""
    key, agreement = new_key(), x25519.X25519PrivateKey.generate()
    first = renewed(gate, enrolled.certificate, request(key))
    again = renewed(gate, enrolled.certificate, request(key, agreement=spki(agreement)))
    assert (again.certificate, again.kid) == (first.certificate, first.kid)
    assert opened(again.mac_key, agreement) == opened(first.mac_key, key)
    assert actions(gate).count("renew") == 1


def test_a_renewed_credential_is_renewed_in_its_turn(gate: Gate, enrolled: Enrolment) -> None:
    """Each names its parent; then a lost answer of the first generation is no use to anybody."""
    key = new_key()
    first = renewed(gate, enrolled.certificate, request(key))
    renewed(gate, first.certificate, request(new_key()))
    assert [row.parent for row in gate.store.rows(select(credentials.c.parent))] == [None, 1, 2]
    assert refusal(gate, enrolled.certificate, request(key)) is Refusal.SUPERSEDED


def test_a_clone_that_renews_itself(gate: Gate, enrolled: Enrolment) -> None:
    """Two keys from one parent: the second gets nothing, the device goes into quarantine, whoever was first."""
    first = renewed(gate, enrolled.certificate, request(new_key()))
    asked = ask(gate, enrolled.certificate, request(new_key()))
    assert isinstance(asked, NotRenewed)
    assert (asked.refused, asked.retry_after_s > 0) == (Refusal.LATER, True)
    [case] = list_cases(gate.store)
    assert (case.device_id, case.state, case.why, case.policy_version) == ("car-tcu", "quarantined", "clone_sign", "7")
    [entry] = gate.store.rows(select(audit).where(audit.c.action == "transition"))
    facts = json.loads(entry.detail)
    assert facts["presented"] == fingerprint(enrolled.certificate)
    assert facts["renewed_to"] == fingerprint(first.certificate)
    assert statuses(gate) == [CredentialStatus.FORMER, CredentialStatus.ACTIVE]
    assert refusal(gate, first.certificate, request(new_key())) is Refusal.LATER, "in quarantine nobody renews"


def test_a_clone_is_noticed_again_after_a_release(gate: Gate, enrolled: Enrolment) -> None:
    """A person who lets the device out without new keys has not ended it."""
    renewed(gate, enrolled.certificate, request(new_key()))
    refusal(gate, enrolled.certificate, request(new_key()))
    decide(gate.store, "acme", "car-tcu", Decision.RELEASE, Classification.BENIGN, "test", "a test")
    assert refusal(gate, enrolled.certificate, request(new_key())) is Refusal.LATER
    assert [case.closed_at_ms is None for case in list_cases(gate.store, closed=True)] == [True, False]


def suspend(gate: Gate) -> None:
    set_device(gate, status=DeviceStatus.SUSPENDED)


def decommission(gate: Gate) -> None:
    set_device(gate, status=DeviceStatus.DECOMMISSIONED)


def quarantine(gate: Gate) -> None:
    set_device(gate, state=DeviceState.QUARANTINED)


def ban(gate: Gate) -> None:
    decide(gate.store, "acme", "car-tcu", Decision.BAN, Classification.CONFIRMED, "test", "a test")


def end(gate: Gate) -> None:
    with gate.store.write("test") as write:
        revoke(write, "acme", "car-tcu", "stolen")


def enrol_anew(gate: Gate) -> None:
    end(gate)
    gate.enrol()


def let_expire(gate: Gate) -> None:
    gate.clock.ms += 366 * 24 * 3600 * 1000


def set_device(gate: Gate, **values: Any) -> None:
    with gate.store.write("test") as write:
        write.execute(update(devices).values(values))
        write.record("test", "acme", "car-tcu", {})


@pytest.mark.parametrize(
    ("happened", "reason"),
    [
        (suspend, Refusal.LATER),
        (quarantine, Refusal.LATER),
        (ban, Refusal.BANNED),
        (decommission, Refusal.UNKNOWN),
        (end, Refusal.REVOKED),
        (enrol_anew, Refusal.REVOKED),
        (let_expire, Refusal.EXPIRED),
    ],
)
def test_a_device_that_may_not_renew_changes_nothing(
    gate: Gate, enrolled: Enrolment, happened: Callable[[Gate], None], reason: Refusal
) -> None:
    """Whatever stands in its request."""
    happened(gate)
    before = statuses(gate), actions(gate)
    assert refusal(gate, enrolled.certificate, request(new_key())) is reason
    assert (statuses(gate), actions(gate)) == before


def test_the_certificate_of_another_device_renews_nothing(gate: Gate, enrolled: Enrolment) -> None:
    """The edge says whose certificate it is; the records say of whom."""
    other = gate.enrol("other")
    assert refusal(gate, other.certificate, request(new_key())) is Refusal.UNKNOWN


def test_a_device_that_is_not_on_record_renews_nothing(gate: Gate, enrolled: Enrolment) -> None:
    """Nor do those of another tenant of the same name."""
    with pytest.raises(Refused) as refused:
        ask(gate, enrolled.certificate, request(new_key()), tenant="other")
    assert refused.value.refusal is Refusal.UNKNOWN


def _other_signature() -> bytes:
    der = bytearray(request(new_key(), encoding=Encoding.DER))
    der[-1] ^= 1
    return bytes(der)


def _twice_the_agreement_key() -> bytes:
    return request(ed25519.Ed25519PrivateKey.generate(), agreement=spki(new_key()))


def low_order_key() -> bytes:
    """An X25519 point with which everybody agrees on zero."""
    prefix = spki(x25519.X25519PrivateKey.generate())[:-32]
    return prefix + bytes(32)


BAD_REQUESTS = {
    "CSR for another device": request(new_key(), "other-tcu"),
    "other SAN": request(new_key(), uri=URI.replace("acme", "rival")),
    "bad signature": _other_signature(),
    "oversized": request(new_key()) + b"\n" * 20_000,
    "RSA key": request(rsa.generate_private_key(65537, 2048)),
    "P-384 key": request(ec.generate_private_key(ec.SECP384R1())),
    "Ed25519 without a key to seal for": request(ed25519.Ed25519PrivateKey.generate()),
    "a key to seal for that is no X25519 key": _twice_the_agreement_key(),
    "a key to seal for that is none": request(new_key(), agreement=b"\x30\x03\x02\x01\x01"),
    "a key to seal for that agrees on nothing": request(new_key(), agreement=low_order_key()),
    "no request": b"hello, gate",
    "half a request": request(new_key())[:200],
    "of a version that there is not": request(new_key(), encoding=Encoding.DER).replace(
        b"\x02\x01\x00", b"\x02\x01\x06", 1
    ),
    "empty": b"",
    "base64 of nothing": b"MIIB",
    "PEM of something else": b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
}


@pytest.mark.parametrize("csr", BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_a_bad_request_is_told_why(gate: Gate, enrolled: Enrolment, csr: bytes) -> None:
    """And a good one is granted after it."""
    assert refusal(gate, enrolled.certificate, csr) is Refusal.CSR
    assert statuses(gate) == [CredentialStatus.ACTIVE]
    renewed(gate, enrolled.certificate, request(new_key()))


def test_a_key_that_the_device_had_before_is_refused(gate: Gate, enrolled: Enrolment) -> None:
    """A renewal is a new key: with the same one a thief of the former would have the new credential too."""
    key = new_key()
    first = renewed(gate, enrolled.certificate, request(key))
    assert refusal(gate, first.certificate, request(key)) is Refusal.CSR


def test_a_copy_of_a_request_inside_another_gets_no_mac_key(gate: Gate, enrolled: Enrolment) -> None:
    """A thief of the former key wraps the device's own request, in PEM, in one that names a key of his to seal for."""
    key, thief = new_key(), x25519.X25519PrivateKey.generate()
    copied = request(key)
    renewed(gate, enrolled.certificate, copied)
    ignored = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), copied)
    wrapped = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(ignored, critical=False)
        .add_extension(x509.UnrecognizedExtension(AGREEMENT_KEY, spki(thief)), critical=False)
        .sign(new_key(), SHA256())
        .public_bytes(Encoding.DER)
    )
    assert x509.load_pem_x509_csr(wrapped) == x509.load_pem_x509_csr(copied), "a reader of PEM finds it in there"
    assert refusal(gate, enrolled.certificate, wrapped) is Refusal.LATER, "it is another key: a clone sign"


def test_what_est_sends_is_a_request(gate: Gate, enrolled: Enrolment) -> None:
    """Base64 of DER, in lines (RFC 7030) or in one (RFC 8951)."""
    pem = request(new_key())
    lines = b"".join(pem.splitlines(keepends=True)[1:-1])
    first = renewed(gate, enrolled.certificate, lines)
    assert renewed(gate, enrolled.certificate, b"".join(lines.split())).certificate == first.certificate


def test_answers_show_no_key(gate: Gate, enrolled: Enrolment) -> None:
    """Only sealed does a MAC key leave the signer."""
    key = new_key()
    answer = renewed(gate, enrolled.certificate, request(key))
    mac_key = opened(answer.mac_key, key)
    shown = repr(answer).encode() + msgspec.json.encode(answer)
    assert mac_key not in shown
    assert mac_key.hex().encode() not in shown
