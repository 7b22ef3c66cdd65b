"""`fleetgate device`: enrol, revoke, list and show devices.

Decides options and output; what the records allow is decided by `control.devices`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleetgate.cli.console_output import AsJson, print_fields, print_json, print_records, say
from fleetgate.cli.session import Session, actor, session_of
from fleetgate.control.bundle import write_bundle
from fleetgate.control.devices import enrol
from fleetgate.control.devices import revoke as revoke_device
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import DEVICE_DAYS, Authority
from fleetgate.control.roster import list_devices, show_device
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError

Tenant = Annotated[str, typer.Option(help="Tenant id.")]
Device = Annotated[str, typer.Option(help="Device id.")]

app = typer.Typer(help="Devices and their credentials.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def enroll(
    context: typer.Context,
    tenant: Tenant,
    vehicle: Annotated[str, typer.Option(help="Vehicle id: a pseudonym, never the VIN.")],
    device: Annotated[str | None, typer.Option(help="Device id; by default VEHICLE-tcu.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="New directory for the device's files; by default devices/DEVICE.")
    ] = None,
    days: Annotated[int, typer.Option(help="Lifetime of the certificate, at most 400.")] = DEVICE_DAYS,
) -> None:
    """Make a device known and write its certificate, private key and MAC key into a directory."""
    session = session_of(context)
    authority = _authority(session)
    keyring = Keyring.load(session.config.path(session.config.edge.keyring))
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        enrolment = enrol(write, authority, keyring, tenant, vehicle, device, days)
        directory = out if out is not None else session.config.path("devices") / enrolment.device_id
        write_bundle(directory, enrolment)
    say(f"enrolled {enrolment.device_id} of {tenant} in {vehicle}: {directory} (its private key has no copy)")


@app.command()
def revoke(
    context: typer.Context,
    tenant: Tenant,
    device: Device,
    reason: Annotated[str, typer.Option(help="Why; stands in the records.")],
) -> None:
    """End a device's current credential, on live connections too."""
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        revoke_device(write, tenant, device, reason)
    say(f"revoked the credential of {device} of {tenant}; edges end its connections within 2 s")


@app.command("list")
def list_(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only devices of this tenant.")] = None,
    as_json: AsJson = False,
) -> None:
    """List devices."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        devices = list_devices(store, tenant)
    if as_json:
        print_json(devices)
        return
    names = ("tenant", "device_id", "vehicle_id", "status", "state", "credential", "not_after_ms")
    print_records(devices, names, empty="no devices; `fleetgate device enroll` makes one")


@app.command()
def show(context: typer.Context, tenant: Tenant, device: Device, as_json: AsJson = False) -> None:
    """Show one device with its credentials and vehicles, newest first."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        detail = show_device(store, tenant, device)
    if as_json:
        print_json(detail)
        return
    print_fields(detail)
    say("")
    names = ("fingerprint", "kid", "status", "not_before_ms", "not_after_ms", "ended_at_ms", "reason")
    print_records(detail.credentials, names, empty="no credentials")
    say("")
    print_records(detail.bindings, ("vehicle_id", "from_ms", "to_ms"), empty="never in a vehicle")


def _authority(session: Session) -> Authority:
    authority = Authority.load(session.pki, session.clock)
    if authority.trust_domain != session.config.trust_domain:
        raise ConfigError(
            f"the CA in {session.pki} is of the trust domain {authority.trust_domain}, but the setting trust_domain "
            f"is {session.config.trust_domain}: the edge would refuse its devices; set trust_domain to the CA's"
        )
    return authority
