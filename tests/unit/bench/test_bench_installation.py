"""The devices of a benchmark are enrolled in bulk, and are the same devices all the same."""

from __future__ import annotations

import ssl

import pytest
from loadtest.bench.installation import TENANT, Installation, park

from fleetgate.clock import SystemClock
from fleetgate.control.bundle import write_bundle
from fleetgate.control.devices import enrol
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.records import DeviceRecord
from fleetgate.control.store import Store
from fleetgate.judge.keys import derive_mac_key
from fleetsim.bundle import read_bundle, tls_context

FIRST = "car-000000-tcu"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    made = Installation(tmp_path_factory.mktemp("bench") / "installation")
    made.enrol(2)
    return made


def record_of(installation: Installation, name: str) -> DeviceRecord:
    with Store.open(installation.config, SystemClock()) as store:
        return store.devices([(TENANT, name)])[TENANT, name]


def test_control_knows_it_as_it_knows_an_enrolled_device(installation: Installation) -> None:
    """Its record differs from one made by `enrol` only in names, digests and times."""
    config = installation.config
    keyring = Keyring.load(config.path(config.edge.keyring))
    authority = Authority.load(installation.directory / "pki", SystemClock())
    with Store.open(config, SystemClock(), write=True) as store, store.write("test") as write:
        write_bundle(installation.directory / "enrolled", enrol(write, authority, keyring, TENANT, "enrolled"))
    bulk, enrolled = record_of(installation, FIRST), record_of(installation, "enrolled-tcu")
    [one], [other] = bulk.credentials, enrolled.credentials
    assert (bulk.vehicle_id, bulk.status, bulk.state, one.kid, one.status, one.ended_at_ms) == (
        *("car-000000", enrolled.status, enrolled.state, other.kid, other.status, other.ended_at_ms),
    )


def test_its_key_is_that_of_its_certificate(installation: Installation) -> None:
    """The bundle's MAC key is derived from the public key that control has."""
    config = installation.config
    root = Keyring.load(config.path(config.edge.keyring)).root(1)
    assert root is not None
    digest = record_of(installation, FIRST).credentials[0].key_digest
    bundle = read_bundle(installation.devices / FIRST)
    assert bundle.mac_key == derive_mac_key(root, TENANT, FIRST, digest)


def test_its_bundle_makes_a_tls_context(installation: Installation) -> None:
    """Certificate, chain, private key and trust anchor fit together."""
    context = tls_context(read_bundle(installation.devices / FIRST), "localhost")
    assert isinstance(context, ssl.SSLContext)


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
