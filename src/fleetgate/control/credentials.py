"""Credentials: how one is made, and how a revocation reaches those that were renewed from it.

Decides what stands on record of a certificate, that a device has one active credential, and that its former one stays
good for retries. Who may have a credential is decided by the caller: `control.devices` for a person, the signer for a
device that renews itself. How a certificate looks is decided by `control.pki`, a MAC key by `judge.keys`.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct
from sqlalchemy import insert, update

from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.profile import DevicePublicKey, key_digest_of
from fleetgate.control.records import CredentialStatus
from fleetgate.control.schema import credentials
from fleetgate.control.store import Write
from fleetgate.judge.keys import derive_mac_key


class Issued(Struct, frozen=True):
    """A new credential. `certificate`: the leaf in PEM; `fingerprint`, `key_digest` and `mac_key` have 32 bytes.

    Its repr holds no secret.
    """

    tenant: str
    device_id: str
    certificate: bytes
    fingerprint: bytes
    key_digest: bytes
    kid: int
    mac_key: bytes

    def __repr__(self) -> str:
        return f"Issued({self.tenant!r}, {self.device_id!r}, fingerprint={self.fingerprint.hex()!r}, kid={self.kid})"

    def __rich_repr__(self) -> Any:
        yield "fingerprint", self.fingerprint.hex()
        yield "kid", self.kid


def issue(
    write: Write,
    authority: Authority,
    keyring: Keyring,
    tenant: str,
    device_id: str,
    public_key: DevicePublicKey,
    days: int,
    parent: int | None,
) -> Issued:
    """Makes a certificate of this key for a device on record and puts it there, under the newest MAC root key.

    `parent` is the id of the active credential that this one renews, which becomes a former one; None at an enrolment.
    Says nothing to edges or audit: the caller does, with `write.record`. Raises as `Authority.issue_device`.
    """
    certificate = authority.issue_device(tenant, device_id, public_key, days)
    leaf = certificate.public_bytes(Encoding.PEM)
    fingerprint = certificate.fingerprint(SHA256())
    key_digest = key_digest_of(public_key)
    kid = keyring.newest_kid
    root = keyring.root(kid)
    assert root is not None  # the newest is an active one
    if parent is not None:  # first: at most one is active
        renewed = update(credentials).where(credentials.c.credential_id == parent)
        write.execute(renewed.values(status=CredentialStatus.FORMER, ended_at_ms=write.now_ms))
    write.execute(
        insert(credentials),
        {
            "tenant": tenant,
            "device_id": device_id,
            "certificate": leaf.decode(),
            "serial": f"{certificate.serial_number:x}",
            "fingerprint": fingerprint,
            "key_digest": key_digest,
            "kid": kid,
            "parent": parent,
            "not_before_ms": int(certificate.not_valid_before_utc.timestamp()) * 1000,
            "not_after_ms": int(certificate.not_valid_after_utc.timestamp()) * 1000,
            "status": CredentialStatus.ACTIVE,
        },
    )
    mac_key = derive_mac_key(root, tenant, device_id, key_digest)
    return Issued(tenant, device_id, leaf, fingerprint, key_digest, kid, mac_key)
