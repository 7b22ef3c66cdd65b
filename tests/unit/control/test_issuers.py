"""Which CA speaks for which tenant."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from tests.authorities import CA, pem

from fleetgate.config import Config
from fleetgate.control.issuers import Issuers
from fleetgate.control.profile import ProfileError, key_digest_of
from fleetgate.errors import ConfigError

A, B, SHARED = (bytes([number]) * 32 for number in range(3))


@pytest.mark.parametrize(
    ("of_tenant", "tenant", "chain"),
    [
        ({}, "acme", [A]),
        ({"acme": {A}}, "acme", [A, SHARED]),
        ({"acme": {A, B}}, "acme", [B]),
        ({"acme": {A}}, "globex", [B, SHARED]),
        ({"acme": {A}, "globex": {B}}, "globex", [B, SHARED]),
        ({"acme": {A, SHARED}, "globex": {B, SHARED}}, "globex", [A.replace(b"\0", b"\7"), SHARED]),
    ],
    ids=["no entries", "named", "one of two", "a tenant without entry", "below one root", "a CA of two tenants"],
)
def test_a_chain_speaks_for_its_tenant(of_tenant: dict[str, set[bytes]], tenant: str, chain: list[bytes]) -> None:
    """Where one of its CAs is named for it, or none is named for anybody and the tenant has no entry."""
    Issuers({name: frozenset(cas) for name, cas in of_tenant.items()}).check(tenant, chain)


@pytest.mark.parametrize(
    ("of_tenant", "tenant", "chain"),
    [
        ({"acme": {A}}, "acme", [B, SHARED]),
        ({"acme": {A}}, "acme", []),
        ({"acme": {A}}, "globex", [A, SHARED]),
        ({"acme": {A}, "globex": {B}}, "acme", [A, B]),
        ({"globex": {SHARED}}, "acme", [A, SHARED]),
    ],
    ids=["not named", "no chain", "another tenant's CA", "a CA below another tenant's", "another tenant's root"],
)
def test_a_chain_does_not_speak_for_a_tenant(of_tenant: dict[str, set[bytes]], tenant: str, chain: list[bytes]) -> None:
    """A tenant's CA makes no vehicles of another tenant, however the chain goes on."""
    with pytest.raises(ProfileError, match="tenant"):
        Issuers({name: frozenset(cas) for name, cas in of_tenant.items()}).check(tenant, chain)


def configured(directory: Path, *named: str, tenant: str = "acme") -> Config:
    return msgspec.structs.replace(Config(), home=str(directory), issuers={tenant: named})


def test_a_ca_is_named_by_its_file_or_by_its_digest(tmp_path: Path) -> None:
    """In plain hex, or as `openssl x509 -fingerprint -sha256` prints it: its key is meant, by whichever certificate."""
    cas = [CA.root(f"root {number}").certificate for number in range(3)]
    (tmp_path / "two.pem").write_bytes(pem(*cas[:2]))
    digests = [ca.fingerprint(SHA256()) for ca in cas]
    for third in (digests[2].hex(), digests[2].hex(":").upper()):
        config = configured(tmp_path, "two.pem", third)
        for ca in cas:
            Issuers.load(config, cas).check("acme", [key_digest_of(ca.public_key())])
        assert Issuers.files(config) == [tmp_path / "two.pem"]


def test_a_ca_by_its_digest_that_is_not_in_the_bundle_is_one_certificate(tmp_path: Path) -> None:
    """Its key is not known. Where it is not in the bundle any more, the entry does not hold the rest up."""
    ca = CA.root().certificate
    digest = ca.fingerprint(SHA256())
    rules = Issuers.load(configured(tmp_path, digest.hex()), [])
    rules.check("acme", [digest])
    with pytest.raises(ProfileError, match="no issuer"):
        rules.check("acme", [key_digest_of(ca.public_key())])
    with pytest.raises(ProfileError, match="another tenant"):
        rules.check("globex", [digest])


@pytest.mark.parametrize(
    ("named", "tenant", "says"),
    [
        (["absent.pem"], "acme", "cannot read"),
        (["empty.pem"], "acme", "holds no certificate"),
        ([], "acme", "names no CA"),
        (["ab" * 32], "Acme", "no tenant id"),
    ],
)
def test_an_entry_that_cannot_be_meant_is_refused(tmp_path: Path, named: list[str], tenant: str, says: str) -> None:
    """Naming the tenant: at the start, at a reload and by `fleetgate config check`."""
    (tmp_path / "empty.pem").touch()
    with pytest.raises(ConfigError, match=says):
        Issuers.load(configured(tmp_path, *named, tenant=tenant), [])
