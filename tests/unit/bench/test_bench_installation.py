"""The devices of a benchmark are real ones, and those that are only parked are whole records."""

from __future__ import annotations

import ssl

import pytest
from loadtest.bench.installation import TENANT, Installation, park

from fleetgate.clock import SystemClock
from fleetgate.control.records import DeviceRecord
from fleetgate.control.store import Store
from fleetsim.bundle import read_bundle, tls_context

FIRST = "car-000001-tcu"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    made = Installation(tmp_path_factory.mktemp("bench") / "installation")
    made.enrol(2)
    return made


def record_of(installation: Installation, name: str) -> DeviceRecord:
    with Store.open(installation.config, SystemClock()) as store:
        return store.devices([(TENANT, name)])[TENANT, name]


def test_its_bundle_makes_a_tls_context(installation: Installation) -> None:
    """Certificate, chain, private key and trust anchor fit together; control knows the certificate."""
    bundle = read_bundle(installation.devices / FIRST)
    assert len(record_of(installation, FIRST).credentials) == 1
    assert len(bundle.mac_key) == 32
    context = tls_context(bundle, "localhost")
    assert isinstance(context, ssl.SSLContext)


def test_more_of_them_are_added_to_those_that_are_there(installation: Installation) -> None:
    """And another tenant's have a directory of their own."""
    installation.enrol(3)
    other = installation.enrol_tenant("quiet", 1)
    assert sorted(path.name for path in installation.devices.iterdir()) == [f"car-00000{n}-tcu" for n in (1, 2, 3)]
    assert [read_bundle(path).tenant for path in other.iterdir()] == ["quiet"]


def test_parked_devices_are_known_and_change_nothing_of_the_others(installation: Installation) -> None:
    """Devices that never connect have whole records, and each has its own revision."""
    with Store.open(installation.config, SystemClock()) as store:
        before = store.revision()
    park(installation.control, 3, 1)
    with Store.open(installation.config, SystemClock()) as store:
        assert [(change.revision, change.device_id) for change in store.changes_from(before + 1, 10)] == [
            (before + number, f"parked-{number:07d}-tcu") for number in (1, 2, 3)
        ]
        assert store.revision() == before + 3
    parked, enrolled = record_of(installation, "parked-0000003-tcu"), record_of(installation, FIRST)
    [one], [other] = parked.credentials, enrolled.credentials
    assert parked.vehicle_id == "parked-0000003"
    assert (len(one.key_digest), len(one.fingerprint), one.kid, one.status, one.ended_at_ms) == (
        *(len(other.key_digest), len(other.fingerprint), other.kid, other.status, other.ended_at_ms),
    )
