"""Devices over their life: enrolment and revocation.

Decides which records change together, and which enrolments the records forbid. What stands on record of a credential is
decided by `control.credentials`; when the edge learns, by `changes`; what a person gets to see, by `control.roster`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from msgspec import Struct
from sqlalchemy import Row, insert, select, update

from fleetgate.control.credentials import Issued, issue
from fleetgate.control.csr import public_key_of
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import DEVICE_DAYS, Authority, private_pem
from fleetgate.control.profile import DevicePublicKey
from fleetgate.control.records import CredentialStatus, DeviceState, DeviceStatus, is_id
from fleetgate.control.roster import device_is, unknown_device
from fleetgate.control.schema import bindings, credentials, devices, tenants, vehicles
from fleetgate.control.store import ENROLMENT, Write
from fleetgate.errors import ConfigError, Conflict, NotFound


class Enrolment(Struct, frozen=True):
    """What a device is given, once. Its repr holds no secret.

    `mac_key` has 32 bytes; the others are PEM: `certificate` the leaf and the issuing CA, `ca` what the gate's own
    certificate is verified with, `private` the private key, which nobody keeps (None: it never left the device).
    """

    tenant: str
    device_id: str
    vehicle_id: str
    kid: int
    mac_key: bytes
    certificate: bytes
    private: bytes | None
    ca: bytes

    def __repr__(self) -> str:
        return f"Enrolment(tenant={self.tenant!r}, device_id={self.device_id!r}, kid={self.kid})"

    def __rich_repr__(self) -> Any:
        yield "tenant", self.tenant
        yield "device_id", self.device_id


def enrol(
    write: Write,
    authority: Authority,
    keyring: Keyring,
    tenant: str,
    vehicle_id: str,
    device_id: str | None = None,
    days: int = DEVICE_DAYS,
    csr: bytes | None = None,
) -> Enrolment:
    """Makes a device known and gives it its keys, as part of the transaction `write`.

    The device id is by default `<vehicle>-tcu`. With `csr`, a certificate request, the key is the device's own. A
    device whose credential was revoked can be enrolled again; a unit whose credential was revoked gives its vehicle
    free for another. Raises ConfigError for ids outside the pattern, CsrError, and Conflict where the records forbid
    it.
    """
    device_id = device_id if device_id is not None else f"{vehicle_id}-tcu"
    for field, text in (("tenant", tenant), ("vehicle", vehicle_id), ("device", device_id)):
        if not is_id(text):
            raise ConfigError(f"the {field} id {text!r} must match [a-z0-9][a-z0-9._-]{{0,62}}")
    _make_device(write, tenant, device_id)
    _bind(write, tenant, device_id, vehicle_id)
    private, public_key = _key_pair(csr, tenant, device_id, authority.trust_domain)
    issued = issue(write, authority, keyring, tenant, device_id, public_key, days, None)
    detail = {"vehicle": vehicle_id, "fingerprint": issued.fingerprint.hex(), "kid": issued.kid}
    write.record(ENROLMENT, tenant, device_id, detail)
    return _given(issued, authority, vehicle_id, private)


def revoke(write: Write, tenant: str, device_id: str, reason: str) -> None:
    """Ends the device's current credential. Raises NotFound, or Conflict where it has none to end."""
    if not reason.strip():
        raise ConfigError("a revocation needs a reason: it is what the next person reads")
    device = _device(write, tenant, device_id)
    if device is None:
        raise NotFound(unknown_device(tenant, device_id))
    current = _credentials(write, tenant, device_id)[0]
    if current.status != CredentialStatus.ACTIVE:
        raise Conflict(f"device {device_id} of tenant {tenant} has no active credential: it was revoked before")
    write.execute(
        update(credentials)
        .where(credentials.c.credential_id == current.credential_id)
        .values(status=CredentialStatus.REVOKED, ended_at_ms=write.now_ms, reason=reason)
    )
    write.record("revoke", tenant, device_id, {"fingerprint": current.fingerprint.hex(), "reason": reason})


def _key_pair(
    csr: bytes | None, tenant: str, device_id: str, trust_domain: str
) -> tuple[EllipticCurvePrivateKey | None, DevicePublicKey]:
    """A new key, or that of the request, whose private half is the device's alone."""
    if csr is not None:
        return None, public_key_of(csr, tenant, device_id, trust_domain)
    key = generate_private_key(SECP256R1())
    return key, key.public_key()


def _given(issued: Issued, authority: Authority, vehicle_id: str, private: EllipticCurvePrivateKey | None) -> Enrolment:
    return Enrolment(
        tenant=issued.tenant,
        device_id=issued.device_id,
        vehicle_id=vehicle_id,
        kid=issued.kid,
        mac_key=issued.mac_key,
        certificate=issued.certificate + authority.chain_pem,
        private=None if private is None else private_pem(private),
        ca=authority.root_pem,
    )


def _make_device(write: Write, tenant: str, device_id: str) -> None:
    """Makes the device where it is new, and refuses one that may not have another credential."""
    device = _device(write, tenant, device_id)
    if device is None:
        if write.row(select(tenants).where(tenants.c.tenant == tenant)) is None:
            write.execute(insert(tenants), {"tenant": tenant, "created_at_ms": write.now_ms})
        values = {"tenant": tenant, "device_id": device_id, "enrolled_at_ms": write.now_ms}
        standing = {"status": DeviceStatus.ACTIVE, "state": DeviceState.TRUSTED, "state_at_ms": write.now_ms}
        write.execute(insert(devices), values | standing)
        return
    if device.status != DeviceStatus.ACTIVE:
        raise Conflict(f"device {device_id} of tenant {tenant} is {device.status}: it cannot be enrolled")
    if _credentials(write, tenant, device_id)[0].status == CredentialStatus.ACTIVE:
        raise Conflict(
            f"device {device_id} of tenant {tenant} is enrolled already: to give it new keys, revoke it first with "
            f"`fleetgate device revoke --tenant {tenant} --device {device_id} --reason ...`"
        )


def _bind(write: Write, tenant: str, device_id: str, vehicle_id: str) -> None:
    """Puts the device into the vehicle, unless it sits there already; takes a revoked unit out of it."""
    if write.row(select(vehicles).where(vehicles.c.tenant == tenant, vehicles.c.vehicle_id == vehicle_id)) is None:
        values = {"tenant": tenant, "vehicle_id": vehicle_id, "created_at_ms": write.now_ms}
        write.execute(insert(vehicles), values)
    open_here = select(bindings).where(bindings.c.tenant == tenant, bindings.c.to_ms.is_(None))
    of_device = write.row(open_here.where(bindings.c.device_id == device_id))
    if of_device is not None and of_device.vehicle_id == vehicle_id:
        return
    if of_device is not None:
        raise Conflict(
            f"device {device_id} of tenant {tenant} sits in vehicle {of_device.vehicle_id}: "
            "name that vehicle, or another device"
        )
    of_vehicle = write.row(open_here.where(bindings.c.vehicle_id == vehicle_id))
    if of_vehicle is not None:
        if _credentials(write, tenant, of_vehicle.device_id)[0].status == CredentialStatus.ACTIVE:
            raise Conflict(
                f"vehicle {vehicle_id} of tenant {tenant} has device {of_vehicle.device_id} in it: to replace it, "
                f"revoke it first with `fleetgate device revoke --tenant {tenant} --device {of_vehicle.device_id} "
                "--reason ...`"
            )
        closed = update(bindings).where(bindings.c.binding_id == of_vehicle.binding_id)
        write.execute(closed.values(to_ms=write.now_ms))
        write.record("unbind", tenant, of_vehicle.device_id, {"vehicle": vehicle_id, "replaced_by": device_id})
    values = {"tenant": tenant, "device_id": device_id, "vehicle_id": vehicle_id, "from_ms": write.now_ms}
    write.execute(insert(bindings), values)


def _device(write: Write, tenant: str, device_id: str) -> Row[Any] | None:
    return write.row(select(devices).where(device_is(devices, tenant, device_id)))


def _credentials(write: Write, tenant: str, device_id: str) -> Sequence[Row[Any]]:
    """All of a known device, newest first; there is at least the one it was enrolled with."""
    query = select(credentials).where(device_is(credentials, tenant, device_id))
    return write.rows(query.order_by(credentials.c.credential_id.desc()))
