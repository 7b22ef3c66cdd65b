"""Enrolment, revocation, replacement of a unit, and the bundle that a device is given."""

from __future__ import annotations

import json
import stat
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from rich.pretty import pretty_repr
from sqlalchemy import select, update

from fleetgate.control.bundle import write_bundle
from fleetgate.control.devices import enrol, revoke
from fleetgate.control.profile import identity_of
from fleetgate.control.records import CredentialStatus, DeviceRecord, DeviceState, DeviceStatus
from fleetgate.control.roster import list_devices, show_device
from fleetgate.control.schema import audit, credentials, devices
from fleetgate.errors import ConfigError, Conflict, NotFound
from fleetgate.judge.keys import derive_mac_key

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate


def record_of(gate: Gate, device: str = "car-tcu") -> DeviceRecord:
    return gate.store.devices([("acme", device)])[("acme", device)]


def revoke_in(gate: Gate, device: str = "car-tcu", reason: str = "lost") -> None:
    with gate.store.write("test") as write:
        revoke(write, "acme", device, reason)


def test_enrolled_device_is_on_record_as_its_certificate_says(gate: Gate) -> None:
    """The edge's look-up and the profile check of the new certificate agree on who this is."""
    enrolment = gate.enrol()
    leaf = x509.load_pem_x509_certificates(enrolment.certificate)[0]
    identity = identity_of(leaf, "fleet.example")
    record = record_of(gate)
    assert (record.device_id, record.vehicle_id, record.status, record.state) == (
        identity.device_id,
        "car",
        DeviceStatus.ACTIVE,
        DeviceState.TRUSTED,
    )
    assert [(entry.fingerprint, entry.key_digest) for entry in record.credentials] == [
        (identity.fingerprint, identity.key_digest)
    ]


def test_device_is_given_the_key_that_the_judge_derives(gate: Gate) -> None:
    """The MAC key follows from the newest root, the names and the certificate's public key."""
    enrolment = gate.enrol()
    root = gate.keyring.root(enrolment.kid)
    assert root is not None
    digest = record_of(gate).credentials[0].key_digest
    assert enrolment.mac_key == derive_mac_key(root, "acme", "car-tcu", digest)


def test_private_key_is_that_of_the_certificate_and_is_kept_nowhere(gate: Gate) -> None:
    """The device gets its private key; the database holds the certificate only."""
    enrolment = gate.enrol()
    assert enrolment.private is not None
    key = load_pem_private_key(enrolment.private, None)
    assert key.public_key() == x509.load_pem_x509_certificates(enrolment.certificate)[0].public_key()
    assert b"PRIVATE" not in gate.config.path("control.db-wal").read_bytes()


def test_device_enrolled_twice_is_a_conflict_that_says_what_to_do(gate: Gate) -> None:
    """A second enrolment neither replaces the keys nor goes unnoticed."""
    gate.enrol()
    with pytest.raises(Conflict, match="fleetgate device revoke"):
        gate.enrol()
    assert gate.store.revision() == 1


def test_second_device_for_an_occupied_vehicle_is_a_conflict(gate: Gate) -> None:
    """A clone cannot be enrolled beside the unit that sits in the vehicle."""
    gate.enrol()
    with pytest.raises(Conflict, match="car-tcu"):
        gate.enrol("car", "clone")


def test_device_of_one_vehicle_is_not_enrolled_for_another(gate: Gate) -> None:
    """A unit that was revoked comes back to its own vehicle only."""
    gate.enrol()
    revoke_in(gate)
    with pytest.raises(Conflict, match="sits in vehicle car"):
        gate.enrol("bus", "car-tcu")


@pytest.mark.parametrize(
    ("vehicle", "device", "tenant"),
    [("Car", None, "acme"), ("car", "../x", "acme"), ("car", None, ""), ("c" * 60, None, "acme"), ("car", "d\n", "a")],
)
def test_names_outside_the_pattern_are_refused(gate: Gate, vehicle: str, device: str | None, tenant: str) -> None:
    """No id reaches a topic, a path or a certificate unless it matches; a default that is too long is refused too."""
    with pytest.raises(ConfigError, match="must match"):
        gate.enrol(vehicle, device, tenant)
    assert gate.store.revision() == 0


def test_same_names_in_two_tenants_are_two_devices(gate: Gate) -> None:
    """A tenant's names are its own: neither keys nor records are shared."""
    first, second = gate.enrol(), gate.enrol(tenant="umbra")
    assert first.mac_key != second.mac_key
    assert [(line.tenant, line.device_id) for line in list_devices(gate.store)] == [
        ("acme", "car-tcu"),
        ("umbra", "car-tcu"),
    ]


def test_many_devices_are_enrolled_in_one_transaction(gate: Gate) -> None:
    """A fleet becomes known at once or not at all, with a revision for each device."""
    with gate.store.write("test") as write:
        for number in range(100):
            enrol(write, gate.authority, gate.keyring, "acme", f"car-{number}")
    assert (gate.store.revision(), len(list_devices(gate.store, "acme"))) == (100, 100)


def test_revoked_credential_is_told_to_the_edge(gate: Gate) -> None:
    """A revocation is a change with its own revision, and ends the credential at its time."""
    gate.enrol()
    gate.clock.ms += 1000
    revoke_in(gate)
    entry = record_of(gate).credentials[0]
    assert (entry.status, entry.ended_at_ms) == (CredentialStatus.REVOKED, gate.clock.ms)
    assert [change.kind for change in gate.store.changes_from(2, 9)] == ["revoke"]


def test_reason_of_a_revocation_stands_on_record(gate: Gate) -> None:
    """Who looks later finds the reason at the credential and in the audit."""
    gate.enrol()
    revoke_in(gate, reason="stolen")
    assert show_device(gate.store, "acme", "car-tcu").credentials[0].reason == "stolen"
    assert (
        json.loads(gate.store.rows(select(audit.c.detail).where(audit.c.action == "revoke"))[0][0])["reason"]
        == "stolen"
    )


def test_revoking_twice_is_a_conflict(gate: Gate) -> None:
    """The second revocation does not move the time of the first."""
    gate.enrol()
    revoke_in(gate)
    with pytest.raises(Conflict, match="no active credential"):
        revoke_in(gate)


def test_revoking_an_unknown_device_is_not_found(gate: Gate) -> None:
    """A typing mistake in a revocation is told, never taken for done."""
    with pytest.raises(NotFound, match="device list"):
        revoke_in(gate, "ghost")


def test_revoking_without_a_reason_is_refused(gate: Gate) -> None:
    """Blanks are no reason."""
    gate.enrol()
    with pytest.raises(ConfigError, match="reason"):
        revoke_in(gate, reason="  ")


def test_reenrolled_device_gets_new_keys_and_remembers_the_old(gate: Gate) -> None:
    """After a revocation the same device gets another credential, which was renewed from none."""
    first = gate.enrol()
    revoke_in(gate)
    second = gate.enrol()
    assert first.mac_key != second.mac_key
    assert [entry.status for entry in record_of(gate).credentials] == [
        CredentialStatus.ACTIVE,
        CredentialStatus.REVOKED,
    ]
    assert [row.parent for row in gate.store.rows(select(credentials.c.parent))] == [None, None]


def test_banned_device_is_not_enrolled_again(gate: Gate) -> None:
    """Enrolment is no way around a ban."""
    gate.enrol()
    revoke_in(gate)
    with gate.store.write("test") as write:
        write.execute(update(devices).values(status=DeviceStatus.BANNED))
    with pytest.raises(Conflict, match="banned"):
        gate.enrol()


def test_quarantined_device_stays_so_when_enrolled_again(gate: Gate) -> None:
    """New keys do not launder a state."""
    gate.enrol()
    revoke_in(gate)
    with gate.store.write("test") as write:
        write.execute(update(devices).values(state=DeviceState.QUARANTINED))
    gate.enrol()
    assert record_of(gate).state is DeviceState.QUARANTINED


def test_replaced_unit_leaves_its_vehicle_and_its_history(gate: Gate) -> None:
    """A new unit takes the place of a revoked one; the old binding is closed, not lost."""
    gate.enrol()
    revoke_in(gate)
    gate.clock.ms += 1000
    gate.enrol("car", "car-tcu-2")
    assert (record_of(gate).vehicle_id, record_of(gate, "car-tcu-2").vehicle_id) == (None, "car")
    assert show_device(gate.store, "acme", "car-tcu").bindings[0].to_ms == gate.clock.ms


def test_enrolment_shows_no_secret(gate: Gate) -> None:
    """Neither repr nor a pretty printer tells the MAC key or the private key."""
    enrolment = gate.enrol()
    shown = repr(enrolment) + pretty_repr(enrolment)
    assert "PRIVATE" not in shown
    assert repr(enrolment.mac_key) not in shown


def test_bundle_holds_what_the_device_needs(gate: Gate, tmp_path: Path) -> None:
    """The files have the names, the content and the modes that an agent relies on."""
    enrolment = gate.enrol()
    write_bundle(tmp_path / "out" / "car", enrolment)
    device = json.loads((tmp_path / "out" / "car" / "device.json").read_bytes())
    assert b64decode(device.pop("mac_key")) == enrolment.mac_key
    assert device == {"tenant": "acme", "device_id": "car-tcu", "vehicle_id": "car", "kid": 1}
    chain = x509.load_pem_x509_certificates((tmp_path / "out" / "car" / "certificate.pem").read_bytes())
    assert [c.fingerprint(SHA256()) for c in chain[1:]] == [gate.authority.issuing.fingerprint(SHA256())]
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out" / "car").iterdir()} == {
        "device.json": 0o600,
        "private.pem": 0o600,
        "certificate.pem": 0o644,
        "ca.pem": 0o644,
    }


def test_bundle_is_not_written_over_another(gate: Gate, tmp_path: Path) -> None:
    """A directory that exists may hold the only copy of a private key."""
    (tmp_path / "car").mkdir()
    with pytest.raises(Conflict, match="--out"):
        write_bundle(tmp_path / "car", gate.enrol())
    assert list((tmp_path / "car").iterdir()) == []


def test_unknown_device_is_not_shown(gate: Gate) -> None:
    """Asking for a device of another tenant is the same as asking for none."""
    gate.enrol()
    with pytest.raises(NotFound):
        show_device(gate.store, "umbra", "car-tcu")
