"""How a device pauses, ends, and gives its place to another.

Decides what each of these does to status, credentials and binding together, and from where it is possible. A ban is
decided in `control.quarantine`, the next device in `control.devices`; the vehicle and its history stay as they are.
"""

from __future__ import annotations

from sqlalchemy import update

from fleetgate.control.credentials import credentials_of, revoke_credentials
from fleetgate.control.devices import Enrolment, device_on_record, enrol, take_out, vehicle_of
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import DEVICE_DAYS, Authority
from fleetgate.control.reason import check_reason
from fleetgate.control.records import DeviceState, DeviceStatus
from fleetgate.control.roster import device_is
from fleetgate.control.schema import devices
from fleetgate.control.store import Write
from fleetgate.errors import Conflict


def suspend(write: Write, tenant: str, device_id: str, reason: str) -> None:
    """Keeps the device out until `resume`; its credential stays. Raises NotFound, Conflict."""
    check_reason(reason)
    device = device_on_record(write, tenant, device_id)
    if device.status != DeviceStatus.ACTIVE:
        raise Conflict(f"device {device_id} of tenant {tenant} is {device.status} already: that keeps it out")
    _set_status(write, tenant, device_id, DeviceStatus.SUSPENDED)
    write.record("suspend", tenant, device_id, {"reason": reason})


def resume(write: Write, tenant: str, device_id: str, reason: str) -> None:
    """Lets a suspended device in again. Raises NotFound, Conflict."""
    check_reason(reason)
    device = device_on_record(write, tenant, device_id)
    if device.status != DeviceStatus.SUSPENDED:
        raise Conflict(f"device {device_id} of tenant {tenant} is {device.status}: there is nothing to resume")
    if device.state == DeviceState.BANNED:
        raise Conflict(
            f"device {device_id} of tenant {tenant} is banned as well: lift that first with "
            f"`fleetgate quarantine release --tenant {tenant} --device {device_id} --classification ... --reason ...`"
        )
    _set_status(write, tenant, device_id, DeviceStatus.ACTIVE)
    write.record("resume", tenant, device_id, {"reason": reason})


def decommission(write: Write, tenant: str, device_id: str, reason: str) -> None:
    """Ends the device: its credentials are revoked, it leaves its vehicle, and is unknown to edges. It may be enrolled
    again, into any vehicle; a ban or a quarantine outlives that. Raises NotFound, Conflict."""
    check_reason(reason)
    device = device_on_record(write, tenant, device_id)
    if device.status == DeviceStatus.DECOMMISSIONED:
        raise Conflict(
            f"device {device_id} of tenant {tenant} is decommissioned already: there is "
            f"nothing to end; `fleetgate device enroll` makes it known again"
        )
    held = credentials_of(write, tenant, device_id)
    ended = revoke_credentials(write, held, [row.credential_id for row in held], reason, write.now_ms)
    vehicle_id = take_out(write, tenant, device_id)
    _set_status(write, tenant, device_id, DeviceStatus.DECOMMISSIONED)
    fingerprints = [row.fingerprint.hex() for row in ended]
    write.record(
        "decommission", tenant, device_id, {"vehicle": vehicle_id, "fingerprints": fingerprints, "reason": reason}
    )


def replace(
    write: Write,
    authority: Authority,
    keyring: Keyring,
    tenant: str,
    device_id: str,
    by: str,
    reason: str,
    days: int = DEVICE_DAYS,
    csr: bytes | None = None,
) -> Enrolment:
    """Puts another unit, `by`, into the vehicle that this one sits in, and decommissions this one. Raises NotFound,
    Conflict, and as `enrol`."""
    device_on_record(write, tenant, device_id)
    vehicle_id = vehicle_of(write, tenant, device_id)
    if vehicle_id is None:
        raise Conflict(f"device {device_id} of tenant {tenant} sits in no vehicle: there is nothing to replace")
    if by == device_id:
        raise Conflict(f"{device_id} cannot take its own place: for new keys, `fleetgate device renew`")
    decommission(write, tenant, device_id, f"replaced by {by}: {reason}")
    return enrol(write, authority, keyring, tenant, vehicle_id, by, days, csr)


def _set_status(write: Write, tenant: str, device_id: str, status: DeviceStatus) -> None:
    write.execute(update(devices).where(device_is(devices, tenant, device_id)).values(status=status))
