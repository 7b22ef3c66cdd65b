"""Identities: real devices of a real gate's records, prepared by its own command and read one by one."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from tests.gate import Installation
from tests.unit.fleetsim.gate_double import GateDouble, make_pki, serving

from fleetgate.control.keyring import Keyring
from fleetgate.control.profile import identity_of
from fleetgate.judge.keys import derive_mac_key
from fleetsim.bundle import BundleError, read_bundle, tls_context
from fleetsim.identities import Identities, Identity, devices_in
from fleetsim.swarm import Swarm
from fleetsim.swarm_plan import Plan
from fleetsim.swarm_work import Shape

COUNT = 3


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    made = Installation.create(tmp_path_factory.mktemp("gate"))
    made.configure()
    return made


@pytest.fixture(scope="module")
def directory(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three identities of two tenants."""
    directory = tmp_path_factory.mktemp("identities")
    assert (
        len(Identities.prepare(installation.directory / "fleetgate.toml", COUNT, directory, ("acme", "globex")))
        == COUNT
    )
    return directory


def test_each_is_a_device_of_the_gate(installation: Installation, directory: Path) -> None:
    """Its certificate names it, its MAC key is the gate's, and TLS takes certificate and private key as a pair."""
    config = installation.config
    root = Keyring.load(config.path(config.edge.keyring)).root(1)
    assert root is not None
    for identity in Identities.open(directory):
        named = identity_of(x509.load_pem_x509_certificates(identity.certificate)[0], config.trust_domain)
        assert (named.tenant, named.device_id) == (identity.tenant, identity.device_id)
        assert identity.mac_key == derive_mac_key(root, identity.tenant, identity.device_id, named.key_digest)
        tls_context(identity, "localhost")
    assert [identity.name for identity in devices_in(directory)] == [
        "acme/sim-000001-tcu",
        "globex/sim-000002-tcu",
        "acme/sim-000003-tcu",
    ]


def test_more_are_added_and_those_that_are_there_keep_their_keys(installation: Installation, directory: Path) -> None:
    """Preparing again makes only what is missing."""
    before = list(Identities.open(directory))
    after = Identities.prepare(installation.directory / "fleetgate.toml", COUNT + 2, directory, ("acme", "globex"))
    assert [after[index] for index in range(COUNT)] == before
    assert len(after) == COUNT + 2


def test_one_is_read_when_it_is_asked_for(directory: Path, tmp_path: Path) -> None:
    """Opening reads no key: a row that is spoiled afterwards is found when its device is wanted, and no sooner."""
    (tmp_path / "identities.db").write_bytes((directory / "identities.db").read_bytes())
    identities = Identities.open(tmp_path)
    with closing(sqlite3.connect(tmp_path / "identities.db")) as db, db:
        db.execute("UPDATE device SET private_key = NULL WHERE number = 2")
    assert identities[0].name == "acme/sim-000001-tcu"
    with pytest.raises(BundleError, match="globex/sim-000002-tcu made its private key itself"):
        identities[1]
    with pytest.raises(IndexError):
        identities[len(identities)]


def test_no_secret_shows(directory: Path) -> None:
    """Neither in a repr nor in an error."""
    identity = Identities.open(directory)[0]
    assert "PRIVATE" not in repr(identity)
    assert repr(identity.mac_key) not in repr(identity)


def test_a_directory_without_identities_says_how_to_make_them(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    with pytest.raises(BundleError, match="make it with `fleetsim identities prepare`"):
        Identities.open(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_swarm_connects_as_an_identity(tmp_path: Path) -> None:
    """Mutual TLS with a key that is in no file."""
    make_pki(tmp_path / "pki")
    bundle = read_bundle(tmp_path / "pki" / "device")
    pem = {name: (bundle.directory / f"{name}.pem").read_bytes() for name in ("certificate", "private", "ca")}
    names = (bundle.tenant, bundle.device_id, bundle.vehicle_id, bundle.kid, bundle.mac_key)
    identity = Identity(*names, pem["certificate"], pem["private"], b"", pem["ca"].decode())
    double = GateDouble()

    async def main() -> None:
        async with serving(double, tmp_path / "pki") as (mqtt, _):
            plan = Plan(mqtt, "localhost", 1, Shape(), 0.1, 0.0, connect_s=10.0)
            await asyncio.to_thread(Swarm(plan, [identity], lambda _: None).run)

    asyncio.run(main())
    assert double.received
