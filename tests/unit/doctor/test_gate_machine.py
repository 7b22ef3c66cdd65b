"""What the doctor finds on the gate's own machine: records, keyring, trust bundle. A real installation, no edge."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from sqlalchemy import update
from tests.authorities import CA, DAY, pem
from tests.gate import Car, Installation
from tests.papers import Workshop, new_key, private_pem

from fleetgate.clock import SystemClock
from fleetgate.config import Crl
from fleetgate.control.keyring import Keyring
from fleetgate.control.records import CredentialStatus, DeviceStatus
from fleetgate.control.roster import device_is
from fleetgate.control.rotation import rotate, withdraw
from fleetgate.control.schema import credentials, devices
from fleetgate.doctor.examine import Ports, examine
from fleetgate.doctor.files import Paths
from fleetgate.doctor.findings import Check, Finding, Says
from fleetgate.doctor.records import GateMachine


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def home(authority: Installation, tmp_path: Path) -> Installation:
    return authority.copy(tmp_path / "gate")


@pytest.fixture
def car(home: Installation) -> Car:
    return home.enrol("car-7")


def look(home: Installation, car: Car, keyring: Path | None = None) -> list[Check]:
    gate = GateMachine(home.config, SystemClock(), configured=True, keyring=keyring)
    return trio.run(examine, Paths.of_bundle(car.directory), Ports(), gate, SystemClock().now_ms)


def findings(home: Installation, car: Car) -> list[Finding]:
    return [check.finding for check in look(home, car) if check.finding is not None]


def set_status(home: Installation, car: Car, status: DeviceStatus) -> None:
    with home.write() as write:
        write.execute(update(devices).where(device_is(devices, car.tenant, car.device_id)).values(status=status))
        write.record("test", car.tenant, car.device_id, {})


def set_credential(home: Installation, car: Car, status: CredentialStatus) -> None:
    with home.write() as write:
        of_car = device_is(credentials, car.tenant, car.device_id)
        write.execute(update(credentials).where(of_car).values(status=status, ended_at_ms=write.now_ms))
        write.record("test", car.tenant, car.device_id, {})


def rewrite(car: Car, **facts: object) -> None:
    """Changes facts in device.json."""
    path = car.directory / "device.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def test_everything_is_good(home: Installation, car: Car) -> None:
    """Every check says ok, and the MAC key is the derived one."""
    assert {check.says for check in look(home, car)} == {Says.OK}


def test_a_revoked_certificate_with_its_reason(home: Installation, car: Car) -> None:
    """The reason that stands in the records is told."""
    home.revoke(car)
    [check] = [check for check in look(home, car) if check.says is Says.WRONG]
    assert (check.finding, "a test" in check.what) == (Finding.REVOKED, True)


@pytest.mark.parametrize(
    ("status", "finding"),
    [
        (DeviceStatus.SUSPENDED, Finding.SUSPENDED),
        (DeviceStatus.BANNED, Finding.BANNED),
        (DeviceStatus.DECOMMISSIONED, Finding.DECOMMISSIONED),
    ],
)
def test_a_device_that_people_keep_out(home: Installation, car: Car, status: DeviceStatus, finding: Finding) -> None:
    """By its status."""
    set_status(home, car, status)
    assert findings(home, car) == [finding]


def test_a_device_that_security_banned(home: Installation, car: Car) -> None:
    """By a decision on its case."""
    home.quarantine(car)
    home.ban(car)
    assert findings(home, car) == [Finding.BANNED]


def test_a_device_in_quarantine(home: Installation, car: Car) -> None:
    """It is not told by the gate; its operators are, by the doctor."""
    home.quarantine(car)
    assert findings(home, car) == [Finding.QUARANTINED]


def test_a_certificate_that_was_replaced(home: Installation, car: Car) -> None:
    """A newer one took its place."""
    set_credential(home, car, CredentialStatus.FORMER)
    assert findings(home, car) == [Finding.FORMER_CERTIFICATE]


def test_a_device_that_the_records_do_not_have(home: Installation, tmp_path: Path) -> None:
    """Enrolled at another gate with the same CA and keyring."""
    assert findings(home, home.stranger(tmp_path / "elsewhere", "car-9")) == [Finding.UNKNOWN_DEVICE]


def test_the_files_of_an_earlier_enrolment(home: Installation, car: Car) -> None:
    """The device was revoked and enrolled again; somebody took the old directory."""
    home.revoke(car)
    new = home.enrol("car-7")
    assert findings(home, new) == []
    assert findings(home, car) == [Finding.REVOKED]


def test_a_certificate_that_the_records_do_not_have(home: Installation, car: Car) -> None:
    """The same CA issued it, and nobody enrolled it."""
    workshop, key = Workshop(home.directory / "pki"), new_key()
    name = f"spiffe://fleet.example/tenant/{car.tenant}/device/{car.device_id}"
    leaf = workshop.leaf(key.public_key(), names=[x509.UniformResourceIdentifier(name)])
    (car.directory / "certificate.pem").write_bytes(pem(leaf, workshop.issuing))
    (car.directory / "private.pem").write_bytes(private_pem(key))
    assert findings(home, car) == [Finding.UNKNOWN_CERTIFICATE, Finding.WRONG_MAC_KEY]


def test_a_key_id_that_the_keyring_does_not_have(home: Installation, car: Car) -> None:
    """The wrong kid."""
    rewrite(car, kid=7)
    assert findings(home, car) == [Finding.WRONG_KID]


def retire(home: Installation, *, successor: bool = True) -> None:
    """Gives the keyring a second root key, and retires the first."""
    path = home.config.path(home.config.edge.keyring)
    file = json.loads(path.read_text())
    file["roots"]["2"] = {"root": base64.b64encode(bytes(range(32))).decode(), "created_at": 0, "state": "active"}
    file["roots"]["1"]["state"] = "retired" if successor else "active"
    path.write_text(json.dumps(file))


def test_a_root_key_that_is_retired(home: Installation, car: Car) -> None:
    """Nothing is accepted under it any more."""
    retire(home)
    assert findings(home, car) == [Finding.WRONG_KID]


def test_a_root_key_that_was_withdrawn(home: Installation, car: Car) -> None:
    """The command that helps can be typed as it stands; the new files are good."""
    path = home.config.path(home.config.edge.keyring)
    with home.write() as write:
        rotate(write, path, os.urandom)
        withdraw(write, path, 1, "a test")
    [check] = [check for check in look(home, car) if check.says is Says.WRONG]
    assert check.finding is Finding.ROOT_WITHDRAWN
    assert "fleetgate device renew --tenant acme --device car-7-tcu --out next/car-7-tcu" in check.mend


def test_a_key_id_of_another_root(home: Installation, car: Car) -> None:
    """device.json says 2, the MAC key and the records say 1."""
    retire(home, successor=False)
    rewrite(car, kid=2)
    assert findings(home, car) == [Finding.WRONG_KID]


def test_the_mac_key_of_another_device(home: Installation, car: Car) -> None:
    """The derived key is another one."""
    rewrite(car, mac_key=json.loads((home.enrol("car-8").directory / "device.json").read_text())["mac_key"])
    assert findings(home, car) == [Finding.WRONG_MAC_KEY]


def test_another_keyring_can_be_named(home: Installation, car: Car, tmp_path: Path) -> None:
    """A copy that an operator has at hand, without the gate's other files."""
    other = tmp_path / "other.json"
    Keyring.create(other, 0, lambda count: bytes(count))
    assert Finding.WRONG_MAC_KEY in [check.finding for check in look(home, car, keyring=other)]


def test_the_trust_bundle_decides(home: Installation, car: Car, tmp_path: Path) -> None:
    """A gate that trusts another CA does not know the device's."""
    bundle = home.config.path(home.config.edge.trust_bundle)
    bundle.write_bytes((Workshop(tmp_path / "other").directory / "root.pem").read_bytes())
    assert findings(home, car) == [Finding.UNKNOWN_ISSUER]


def test_a_bundle_with_the_issuing_ca_needs_no_intermediate(home: Installation, car: Car) -> None:
    """The device's certificate alone is enough for such a gate."""
    path = car.directory / "certificate.pem"
    path.write_text("".join(path.read_text().partition("-----END CERTIFICATE-----\n")[:2]))
    assert findings(home, car) == []


def test_the_wrong_trust_domain(home: Installation, car: Car) -> None:
    """The setting of the gate counts."""
    configure(home, trust_domain="other.example")
    assert findings(home, car) == [Finding.OTHER_TRUST_DOMAIN]


def test_a_ca_file_that_does_not_verify_the_gate(home: Installation, car: Car, tmp_path: Path) -> None:
    """Found without a connection: the gate's certificate is here."""
    other = Workshop(tmp_path / "other")
    (car.directory / "ca.pem").write_bytes((other.directory / "root.pem").read_bytes())
    assert findings(home, car) == [Finding.SERVER_UNVERIFIED]


@pytest.mark.parametrize("name", ["control.db", "keyring.json", "pki/trust.pem", "pki/server.pem"])
def test_what_is_not_at_hand_is_no_fault_of_the_device(home: Installation, car: Car, name: str) -> None:
    """Nothing is called wrong; what cannot be told says why."""
    (home.directory / name).unlink()
    checks = look(home, car)
    assert [check.finding for check in checks if check.says is Says.WRONG] == []
    if name != "pki/trust.pem":  # then the CA file stands in for it
        assert Says.CANNOT_TELL in {check.says for check in checks}


def ca_of(home: Installation) -> Workshop:
    return Workshop(home.directory / "pki")


def configure(home: Installation, **changed: Any) -> None:
    home.config = msgspec.structs.replace(home.config, **changed)


def test_an_issuer_of_another_tenant(home: Installation, car: Car) -> None:
    """The table [issuers] gives this CA to globex."""
    configure(home, issuers={"globex": (ca_of(home).issuing.fingerprint(SHA256()).hex(),)})
    assert findings(home, car) == [Finding.ISSUER_NOT_ALLOWED]


def publish(home: Installation, *revoked: x509.Certificate, days: int = 1) -> None:
    """A list of the issuing CA, which ends in `days`."""
    issuing = CA(ca_of(home).issuing, ca_of(home).key)
    file = home.directory / "issuing.crl"
    file.write_bytes(issuing.crl(*revoked, this_s=-30 * DAY, next_s=days * DAY))
    configure(home, crls=(Crl(file=str(file)),))


def test_a_certificate_that_a_list_names(home: Installation, car: Car) -> None:
    """Revoked by an external PKI; the records know nothing of it."""
    publish(home, x509.load_pem_x509_certificates((car.directory / "certificate.pem").read_bytes())[0])
    assert findings(home, car) == [Finding.REVOKED]


def test_a_list_that_is_past_its_grace(home: Installation, car: Car) -> None:
    """Nobody is let in under its CA until the next one comes."""
    publish(home, days=-20)
    assert findings(home, car) == [Finding.LIST_EXPIRED]


def test_a_list_that_cannot_be_read_is_no_fault_of_the_device(home: Installation, car: Car) -> None:
    """A file that is none, and one at a URL, which the edge alone fetches."""
    (home.directory / "bad.crl").write_bytes(b"not a list")
    configure(home, crls=(Crl(file="bad.crl"), Crl(url="http://127.0.0.1:9/list.crl")))
    checks = [check for check in look(home, car) if check.check == "revocation lists"]
    assert [check.says for check in checks] == [Says.CANNOT_TELL, Says.CANNOT_TELL]
