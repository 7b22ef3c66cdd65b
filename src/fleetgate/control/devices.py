"""Devices over their life: enrolment, renewal and revocation.

Decides which records change together, and which enrolments the records forbid. What stands on record of a credential is
decided by `control.credentials`; how a device pauses and ends, by `control.retirement`; when the edge learns, by
`changes`; what a person gets to see, by `control.roster`.
"""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from msgspec import Struct
from sqlalchemy import Row, insert, select, update

from fleetgate.control.credentials import Issued, credentials_of, issue, revoke_credentials
from fleetgate.control.csr import public_key_of
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import DEVICE_DAYS, Authority, private_pem
from fleetgate.control.profile import DevicePublicKey, key_digest_of
from fleetgate.control.reason import check_reason
from fleetgate.control.records import CredentialStatus, DeviceState, DeviceStatus, is_id
from fleetgate.control.roster import device_is, unknown_device
from fleetgate.control.schema import bindings, credentials, devices, tenants, transfers, vehicles
from fleetgate.control.store import ENROLMENT, RENEWAL, Write
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
    check_names(tenant, vehicle_id, device_id)
    _make_device(write, tenant, device_id)
    _bind(write, tenant, device_id, vehicle_id)
    private, public_key = _key_pair(write, csr, tenant, device_id, authority.trust_domain)
    issued = issue(write, authority, keyring, tenant, device_id, public_key, days, None)
    detail = {"vehicle": vehicle_id, "fingerprint": issued.fingerprint.hex(), "kid": issued.kid}
    write.record(ENROLMENT, tenant, device_id, detail)
    return given(issued, authority, vehicle_id, private)


def renew(
    write: Write,
    authority: Authority,
    keyring: Keyring,
    tenant: str,
    device_id: str,
    days: int = DEVICE_DAYS,
    csr: bytes | None = None,
) -> Enrolment:
    """Gives a device its next credential, before or after the present one expires; that one becomes a former one.

    Raises NotFound, CsrError, and Conflict for a device that is kept out, or has no active credential to renew.
    """
    device = device_on_record(write, tenant, device_id)
    _check_not_kept_out(device)
    current = credentials_of(write, tenant, device_id)[0]
    if current.status != CredentialStatus.ACTIVE:
        raise Conflict(
            f"the credential of device {device_id} of tenant {tenant} is {current.status}: give it another with "
            f"`fleetgate device enroll --tenant {tenant} --vehicle VEHICLE --device {device_id}`"
        )
    private, public_key = _key_pair(write, csr, tenant, device_id, authority.trust_domain)
    issued = issue(write, authority, keyring, tenant, device_id, public_key, days, current.credential_id)
    detail = {"fingerprint": issued.fingerprint.hex(), "parent": current.fingerprint.hex(), "kid": issued.kid}
    write.record(RENEWAL, tenant, device_id, detail)
    return given(issued, authority, vehicle_of(write, tenant, device_id) or "", private)


def revoke(
    write: Write,
    tenant: str,
    device_id: str,
    reason: str,
    fingerprint: str | None = None,
    effective_ms: int | None = None,
) -> int:
    """Revokes the device's credentials, the former ones too, and says how many.

    With `fingerprint`, the first digits of one in hex, only that one and what was renewed from it. `effective_ms` is
    now if not given; at one to come the edges act by themselves. Raises NotFound, ConfigError without a reason, and
    Conflict where there is nothing to revoke.
    """
    check_reason(reason)
    device_on_record(write, tenant, device_id)
    all_ = credentials_of(write, tenant, device_id)
    begins = None if fingerprint is None else fingerprint.replace(":", "").lower()  # as openssl prints it, too
    chosen = [row for row in all_ if begins is None or row.fingerprint.hex().startswith(begins)]
    if fingerprint is not None and len(chosen) != 1:
        raise NotFound(
            f"{len(chosen) or 'no'} credentials of device {device_id} of tenant {tenant} have fingerprints that begin "
            f"with {fingerprint}: `fleetgate device show --tenant {tenant} --device {device_id}` shows them"
        )
    effective_ms = write.now_ms if effective_ms is None else effective_ms
    revoked = revoke_credentials(write, all_, [row.credential_id for row in chosen], reason, effective_ms)
    if not revoked:
        raise Conflict(f"device {device_id} of tenant {tenant} has no active credential: it was revoked before")
    fingerprints = [row.fingerprint.hex() for row in revoked]
    detail = {"fingerprints": fingerprints, "reason": reason, "effective_ms": effective_ms}
    write.record("revoke", tenant, device_id, detail)
    return len(revoked)


def check_names(tenant: str, vehicle_id: str, device_id: str) -> None:
    """Raises ConfigError for one outside the pattern."""
    for field, text in (("tenant", tenant), ("vehicle", vehicle_id), ("device", device_id)):
        if not is_id(text):
            raise ConfigError(f"the {field} id {text!r} must match [a-z0-9][a-z0-9._-]{{0,62}}")


def given(issued: Issued, authority: Authority, vehicle_id: str, private: EllipticCurvePrivateKey | None) -> Enrolment:
    """What goes to the device of what was issued."""
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


def device_on_record(write: Write, tenant: str, device_id: str) -> Row[Any]:
    """Raises NotFound."""
    device = write.row(select(devices).where(device_is(devices, tenant, device_id)))
    if device is None:
        raise NotFound(unknown_device(tenant, device_id))
    return device


def vehicle_of(write: Write, tenant: str, device_id: str) -> str | None:
    """The vehicle that the device sits in now."""
    found = write.row(select(bindings).where(device_is(bindings, tenant, device_id), bindings.c.to_ms.is_(None)))
    return None if found is None else str(found.vehicle_id)


def take_out(write: Write, tenant: str, device_id: str) -> str | None:
    """Closes the device's binding; returns the vehicle it sat in."""
    vehicle_id = vehicle_of(write, tenant, device_id)
    closed = update(bindings).where(device_is(bindings, tenant, device_id), bindings.c.to_ms.is_(None))
    write.execute(closed.values(to_ms=write.now_ms))
    return vehicle_id


def _key_pair(
    write: Write, csr: bytes | None, tenant: str, device_id: str, trust_domain: str
) -> tuple[EllipticCurvePrivateKey | None, DevicePublicKey]:
    """A new key, or that of the request, whose private half is the device's alone. Raises Conflict for one that ever
    was on record: two units must not have the same, and a revoked one stays so."""
    if csr is not None:
        public_key = public_key_of(csr, tenant, device_id, trust_domain)
        if write.row(select(credentials).where(credentials.c.key_digest == key_digest_of(public_key))) is not None:
            raise Conflict("the key of the certificate request was certified before: have the device make a new one")
        return None, public_key
    key = generate_private_key(SECP256R1())
    return key, key.public_key()


def _make_device(write: Write, tenant: str, device_id: str) -> None:
    """Makes the device where it is new, and known again where it was decommissioned; refuses one that may not have
    another credential."""
    device = write.row(select(devices).where(device_is(devices, tenant, device_id)))
    if device is None:
        if write.row(select(tenants).where(tenants.c.tenant == tenant)) is None:
            write.execute(insert(tenants), {"tenant": tenant, "created_at_ms": write.now_ms})
        values = {"tenant": tenant, "device_id": device_id, "enrolled_at_ms": write.now_ms}
        standing = {"status": DeviceStatus.ACTIVE, "state": DeviceState.TRUSTED, "state_at_ms": write.now_ms}
        write.execute(insert(devices), values | standing)
        return
    if device.status == DeviceStatus.DECOMMISSIONED and device.state != DeviceState.BANNED:
        write.execute(update(devices).where(device_is(devices, tenant, device_id)).values(status=DeviceStatus.ACTIVE))
        return
    _check_not_kept_out(device)
    if credentials_of(write, tenant, device_id)[0].status == CredentialStatus.ACTIVE:
        raise Conflict(
            f"device {device_id} of tenant {tenant} is enrolled already: to give it its next credential, "
            f"`fleetgate device renew`; if its keys are lost, revoke it first with "
            f"`fleetgate device revoke --tenant {tenant} --device {device_id} --reason ...`"
        )


def _check_not_kept_out(device: Row[Any]) -> None:
    """New keys are no way around what keeps a device out."""
    status = DeviceStatus.BANNED if device.state == DeviceState.BANNED else device.status
    if status == DeviceStatus.ACTIVE:
        return
    whom = f"--tenant {device.tenant} --device {device.device_id}"
    way = {
        DeviceStatus.SUSPENDED: f"; `fleetgate device resume {whom} --reason ...` lets it in again",
        DeviceStatus.BANNED: f"; `fleetgate quarantine release {whom} --classification ... --reason ...` lifts the ban",
        DeviceStatus.DECOMMISSIONED: f"; `fleetgate device enroll --vehicle VEHICLE {whom}` makes it known again",
    }[DeviceStatus(status)]
    raise Conflict(f"device {device.device_id} of tenant {device.tenant} is {status}: it gets no new credential{way}")


def _bind(write: Write, tenant: str, device_id: str, vehicle_id: str) -> None:
    """Puts the device into the vehicle, unless it sits there already; takes a revoked unit out of it."""
    if write.row(select(vehicles).where(vehicles.c.tenant == tenant, vehicles.c.vehicle_id == vehicle_id)) is None:
        values = {"tenant": tenant, "vehicle_id": vehicle_id, "created_at_ms": write.now_ms}
        write.execute(insert(vehicles), values)
    gone = select(transfers).where(transfers.c.from_tenant == tenant, transfers.c.from_vehicle_id == vehicle_id)
    if write.row(gone) is not None:
        raise Conflict(f"vehicle {vehicle_id} of tenant {tenant} was transferred: name another for the car that it is")
    sits_in = vehicle_of(write, tenant, device_id)
    if sits_in == vehicle_id:
        return
    if sits_in is not None:
        raise Conflict(
            f"device {device_id} of tenant {tenant} sits in vehicle {sits_in}: name that vehicle, or another device"
        )
    of_vehicle = write.row(
        select(bindings).where(
            bindings.c.tenant == tenant, bindings.c.vehicle_id == vehicle_id, bindings.c.to_ms.is_(None)
        )
    )
    if of_vehicle is not None:
        if credentials_of(write, tenant, of_vehicle.device_id)[0].status == CredentialStatus.ACTIVE:
            raise Conflict(
                f"vehicle {vehicle_id} of tenant {tenant} has device {of_vehicle.device_id} in it: to put another in "
                f"its place, `fleetgate device replace --tenant {tenant} --device {of_vehicle.device_id} "
                f"--by {device_id} --reason ...`"
            )
        take_out(write, tenant, of_vehicle.device_id)
        write.record("unbind", tenant, of_vehicle.device_id, {"vehicle": vehicle_id, "replaced_by": device_id})
    values = {"tenant": tenant, "device_id": device_id, "vehicle_id": vehicle_id, "from_ms": write.now_ms}
    write.execute(insert(bindings), values)
