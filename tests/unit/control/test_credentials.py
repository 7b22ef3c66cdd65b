"""How a credential is made: for a key of its own or of the device's, and renewed from another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import CertificateSigningRequestBuilder, Name, load_pem_x509_certificates
from rich.pretty import pretty_repr
from sqlalchemy import select

from fleetgate.control.bundle import write_bundle
from fleetgate.control.credentials import Issued, issue
from fleetgate.control.devices import enrol
from fleetgate.control.records import CredentialStatus
from fleetgate.control.schema import credentials
from fleetgate.judge.keys import derive_mac_key

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate


def renew(gate: Gate, parent: int = 1) -> Issued:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    with gate.store.write("test") as write:
        issued = issue(write, gate.authority, gate.keyring, "acme", "car-tcu", key, 30, parent)
        write.record("renew", "acme", "car-tcu", {})
    return issued


def test_a_renewed_credential_names_its_parent_which_becomes_a_former_one(gate: Gate) -> None:
    """One is active; the former one ended when the new one was made, for the time that its retries are good."""
    gate.enrol()
    gate.clock.ms += 1000
    issued = renew(gate)
    [now, before] = gate.store.devices([("acme", "car-tcu")])[("acme", "car-tcu")].credentials
    assert (now.status, now.fingerprint) == (CredentialStatus.ACTIVE, issued.fingerprint)
    assert (before.status, before.ended_at_ms) == (CredentialStatus.FORMER, gate.clock.ms)
    assert [row.parent for row in gate.store.rows(select(credentials.c.parent))] == [None, 1]


def test_a_renewed_credential_has_a_mac_key_of_its_own_under_the_newest_root(gate: Gate) -> None:
    """The key follows from the certificate's public key."""
    gate.enrol()
    issued = renew(gate)
    root = gate.keyring.root(gate.keyring.newest_kid)
    assert root is not None
    assert issued.mac_key == derive_mac_key(root, "acme", "car-tcu", issued.key_digest)


def test_an_issued_credential_shows_no_secret(gate: Gate) -> None:
    """Neither repr nor a pretty printer tells the MAC key."""
    gate.enrol()
    issued = renew(gate)
    shown = repr(issued) + pretty_repr(issued)
    assert repr(issued.mac_key)[2:-1] not in shown
    assert issued.mac_key.hex() not in shown


def test_a_device_enrolled_from_a_request_keeps_its_private_key(gate: Gate, tmp_path: Path) -> None:
    """The certificate is of the request's key, and the bundle has everything but a private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = CertificateSigningRequestBuilder().subject_name(Name([])).sign(key, SHA256()).public_bytes(Encoding.PEM)
    with gate.store.write("test") as write:
        enrolment = enrol(write, gate.authority, gate.keyring, "acme", "car", csr=csr)
    write_bundle(tmp_path / "car", enrolment)
    leaf = load_pem_x509_certificates((tmp_path / "car" / "certificate.pem").read_bytes())[0]
    assert leaf.public_key() == key.public_key()
    assert sorted(path.name for path in (tmp_path / "car").iterdir()) == ["ca.pem", "certificate.pem", "device.json"]
