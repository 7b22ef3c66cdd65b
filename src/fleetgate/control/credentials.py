"""Credentials: how one is made, and how a revocation reaches those that were renewed from it.

Decides what stands on record of a certificate, that a device has one active credential, and that its former one stays
good for retries. Who may have a credential is decided by the caller: `control.devices` for a person, the signer for a
device that renews itself. How a certificate looks is decided by `control.pki`, a MAC key by `judge.keys`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Struct
from msgspec.structs import asdict
from sqlalchemy import Row, insert, select, update

from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.profile import DevicePublicKey, key_digest_of
from fleetgate.control.records import CredentialStatus
from fleetgate.control.roster import device_is
from fleetgate.control.schema import credentials
from fleetgate.control.store import Write
from fleetgate.errors import Conflict
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


class Certified(Struct, frozen=True):
    """A certificate that stands nowhere on record yet. `certificate`: the leaf in PEM."""

    tenant: str
    device_id: str
    certificate: bytes
    serial: str
    fingerprint: bytes
    key_digest: bytes
    not_before_ms: int
    not_after_ms: int


def certify(authority: Authority, tenant: str, device_id: str, public_key: DevicePublicKey, days: int) -> Certified:
    """Makes a certificate of this key for a device. Needs no transaction. Raises as `Authority.issue_device`."""
    certificate = authority.issue_device(tenant, device_id, public_key, days)
    return Certified(
        tenant,
        device_id,
        certificate.public_bytes(Encoding.PEM),
        f"{certificate.serial_number:x}",
        certificate.fingerprint(SHA256()),
        key_digest_of(public_key),
        int(certificate.not_valid_before_utc.timestamp()) * 1000,
        int(certificate.not_valid_after_utc.timestamp()) * 1000,
    )


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
    """Makes a certificate of this key for a device on record and puts it there, under the newest MAC root key that
    every edge knows.

    `parent` is the id of the active credential that this one renews, which becomes a former one; None at an enrolment.
    A revocation of the parent that is still to come is the new one's too. Says nothing to edges or audit: the caller
    does, with `write.record`. Raises Conflict for a parent that is not active, and as `Authority.issue_device`.
    """
    certified = certify(authority, tenant, device_id, public_key, days)
    inherited = {} if parent is None else _end_parent(write, parent)  # first: at most one is active
    [issued] = _put_on_record(write, keyring, [certified], {"parent": parent, **inherited})
    return issued


def issue_first(write: Write, keyring: Keyring, certified: Sequence[Certified]) -> list[Issued]:
    """The same for many devices on record of which none has a credential, with certificates that were made before."""
    return _put_on_record(write, keyring, certified, {"parent": None})


def _put_on_record(
    write: Write, keyring: Keyring, certified: Sequence[Certified], further: Mapping[str, Any]
) -> list[Issued]:
    kid = keyring.issuing_kid(write.now_ms)
    root = keyring.root(kid)
    assert root is not None  # it is an active one
    standing = {"kid": kid, "status": CredentialStatus.ACTIVE, **further}
    rows = [asdict(each) | {"certificate": each.certificate.decode(), **standing} for each in certified]
    write.execute(insert(credentials), rows)
    return [
        Issued(
            each.tenant,
            each.device_id,
            each.certificate,
            each.fingerprint,
            each.key_digest,
            kid,
            derive_mac_key(root, each.tenant, each.device_id, each.key_digest),
        )
        for each in certified
    ]


def revoke_credentials(
    write: Write, of_device: Sequence[Row[Any]], chosen: Collection[int], reason: str, effective_ms: int
) -> list[Row[Any]]:
    """Revokes those of a device's credentials whose ids are `chosen`, and what was renewed from them, whatever its
    status; returns all that it was done to. `of_device` is every credential of the device.

    At a time that is past they are refused from now on, and it stands on record since when they were not to be trusted;
    at one that is still to come they are refused from then on, and until then the time may be changed.
    """
    renewed: dict[int | None, list[int]] = {}
    for row in of_device:
        renewed.setdefault(row.parent, []).append(row.credential_id)
    reached, waiting = set[int](), list(chosen)
    while waiting:
        credential_id = waiting.pop()
        if credential_id not in reached:
            reached.add(credential_id)
            waiting += renewed.get(credential_id, [])
    ended = [row for row in of_device if row.credential_id in reached and row.status != CredentialStatus.REVOKED]
    for row in ended:
        values: dict[str, Any] = {"reason": reason, "revoked_from_ms": max(effective_ms, write.now_ms)}
        if effective_ms <= write.now_ms:
            ended_at_ms = write.now_ms if row.ended_at_ms is None else row.ended_at_ms
            values |= {"status": CredentialStatus.REVOKED, "ended_at_ms": ended_at_ms}
        if effective_ms < write.now_ms:
            values["invalid_from_ms"] = effective_ms
        write.execute(update(credentials).where(credentials.c.credential_id == row.credential_id).values(values))
    return ended


def credentials_of(write: Write, tenant: str, device_id: str) -> Sequence[Row[Any]]:
    """All of a known device, newest first; there is at least the one it was enrolled with."""
    query = select(credentials).where(device_is(credentials, tenant, device_id))
    return write.rows(query.order_by(credentials.c.credential_id.desc()))


def _end_parent(write: Write, parent: int) -> dict[str, Any]:
    """Makes it a former one; returns what the credential that takes its place has from it."""
    of_parent = credentials.c.credential_id == parent
    row = write.row(select(credentials).where(of_parent))
    if row is None or row.status != CredentialStatus.ACTIVE:
        raise Conflict("the credential to be renewed is not the active one of its device")
    ended = {"status": CredentialStatus.FORMER, "ended_at_ms": write.now_ms}
    write.execute(update(credentials).where(of_parent).values(ended))
    return {"revoked_from_ms": row.revoked_from_ms, "reason": row.reason}
