"""`fleetgate device`: a device's life, from enrolment to its end, and what is on record of it.

Decides options and output; what the records allow is decided by `control.devices` and `control.retirement`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fleetgate.cli.console_output import AsJson, print_fields, print_json, print_records, say, show
from fleetgate.cli.issuing import (
    Days,
    Out,
    OutNext,
    Request,
    authority_and_keyring,
    hand_over,
    hand_over_next,
    read_request,
    told,
)
from fleetgate.cli.moment import moment
from fleetgate.cli.progress import progress
from fleetgate.cli.session import actor, session_of
from fleetgate.control.archive import Archive
from fleetgate.control.bulk import Bulk, Handover
from fleetgate.control.devicelist import read_list
from fleetgate.control.devices import enrol
from fleetgate.control.devices import renew as renew_device
from fleetgate.control.devices import revoke as revoke_device
from fleetgate.control.directories import Directories
from fleetgate.control.pki import DEVICE_DAYS
from fleetgate.control.retirement import decommission as decommission_device
from fleetgate.control.retirement import replace as replace_device
from fleetgate.control.retirement import resume as resume_device
from fleetgate.control.retirement import suspend as suspend_device
from fleetgate.control.roster import list_devices, show_device
from fleetgate.control.store import Store
from fleetgate.errors import CheckFailed

Tenant = Annotated[str, typer.Option(help="Tenant id.")]
Device = Annotated[str, typer.Option(help="Device id.")]
Reason = Annotated[str, typer.Option(help="Why; stands in the records.")]

app = typer.Typer(help="Devices and their credentials.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def enroll(
    context: typer.Context,
    tenant: Tenant,
    vehicle: Annotated[str, typer.Option(help="Vehicle id: a pseudonym, never the VIN.")],
    device: Annotated[str | None, typer.Option(help="Device id; by default VEHICLE-tcu.")] = None,
    csr: Request = None,
    out: Out = None,
    days: Days = DEVICE_DAYS,
) -> None:
    """Make a device known and write its certificate, private key and MAC key into a directory."""
    session = session_of(context)
    request = read_request(csr)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        authority, keyring = authority_and_keyring(session)
        enrolment = enrol(write, authority, keyring, tenant, vehicle, device, days, request)
        directory = hand_over(session, enrolment, out)
    say(f"enrolled {enrolment.device_id} of {tenant} in {vehicle}: {told(directory, enrolment)}")


@app.command("enroll-many")
def enroll_many(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV with the columns tenant, vehicle and, if wanted, device and csr.")],
    out: Annotated[
        Path | None, typer.Option(help="Directory for the files, OUT/TENANT/DEVICE; by default devices.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="One SQLite file for all of it instead; faster by far for many thousands.")
    ] = None,
    days: Days = DEVICE_DAYS,
) -> None:
    """Enrol the devices of a list. Ended at any moment, it goes on where it was when it is run again."""
    if out is not None and archive is not None:
        raise typer.BadParameter("name a directory with --out or a file with --archive, not both")
    session = session_of(context)
    authority_and_keyring(session)  # a run that could make nothing does not begin
    rows = read_list(file)
    place = archive or out or session.config.path("devices")
    handover: Handover = Archive(place) if archive else Directories(place)
    with Store.open(session.config, session.clock, write=True) as store, progress(len(rows)) as bar:
        tally = Bulk(
            store,
            actor(),
            lambda: authority_and_keyring(session),
            handover,
            days,
            lambda line, why: bar.say(f"line {line}: {why}"),
            bar.go,
        ).run(rows)
    say(f"enrolled {tally.enrolled} devices into {place}")
    if tally.before:
        elsewhere = f"; the files of {tally.elsewhere} of them are not in {place}" if tally.elsewhere else ""
        say(f"{tally.before} were enrolled before{elsewhere}")
    if tally.refused:
        raise CheckFailed(f"{tally.refused} of {len(rows)} rows of {file} were not enrolled: the reasons stand above")


@app.command()
def renew(
    context: typer.Context,
    tenant: Tenant,
    device: Device,
    csr: Request = None,
    out: OutNext = None,
    days: Days = DEVICE_DAYS,
) -> None:
    """Give a device its next certificate and MAC key. What it signed under the present ones stays good for 30 days."""
    session = session_of(context)
    request = read_request(csr)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        authority, keyring = authority_and_keyring(session)
        enrolment = renew_device(write, authority, keyring, tenant, device, days, request)
        directory = hand_over_next(session, enrolment, out)
    say(f"renewed the credential of {device} of {tenant}: {told(directory, enrolment)}")


@app.command()
def revoke(
    context: typer.Context,
    tenant: Tenant,
    device: Device,
    reason: Reason,
    credential: Annotated[
        str | None,
        typer.Option(help="Fingerprint, or how it begins: only this one and those renewed from it. By default all."),
    ] = None,
    effective: Annotated[
        datetime | None,
        typer.Option(
            parser=moment,
            metavar="TIME",
            help="When: 2026-12-01T08:00Z. Past: since when it was not to be trusted; it ends now. By default now.",
        ),
    ] = None,
) -> None:
    """Revoke a device's credentials, on live connections too."""
    session = session_of(context)
    at_ms = None if effective is None else int(effective.timestamp() * 1000)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        count = revoke_device(write, tenant, device, reason, credential, at_ms)
        to_come = at_ms is not None and at_ms > write.now_ms
    what = "the credential" if count == 1 else f"{count} credentials"
    when = (
        f"it takes effect at {show('at_ms', at_ms)}; to move it, revoke again"
        if to_come
        else "edges end its connections within 2 s"
    )
    say(f"revoked {what} of {device} of {tenant}; {when}")


@app.command()
def suspend(context: typer.Context, tenant: Tenant, device: Device, reason: Reason) -> None:
    """Keep a device out for a while, on live connections too; its credential stays."""
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        suspend_device(write, tenant, device, reason)
    say(f"suspended {device} of {tenant}; edges end its connections within 2 s; `fleetgate device resume` lets it in")


@app.command()
def resume(context: typer.Context, tenant: Tenant, device: Device, reason: Reason) -> None:
    """Let a suspended device in again."""
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        resume_device(write, tenant, device, reason)
    say(f"resumed {device} of {tenant}; edges learn it within a second")


@app.command()
def replace(
    context: typer.Context,
    tenant: Tenant,
    device: Device,
    by: Annotated[str, typer.Option(help="Device id of the unit that takes its place.")],
    reason: Reason,
    csr: Request = None,
    out: Out = None,
    days: Days = DEVICE_DAYS,
) -> None:
    """Put another unit into a device's vehicle: the old one is decommissioned, the new one enrolled."""
    session = session_of(context)
    request = read_request(csr)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        authority, keyring = authority_and_keyring(session)
        enrolment = replace_device(write, authority, keyring, tenant, device, by, reason, days, request)
        directory = hand_over(session, enrolment, out)
    say(f"replaced {device} of {tenant} in {enrolment.vehicle_id} by {by}: {told(directory, enrolment)}")


@app.command()
def decommission(context: typer.Context, tenant: Tenant, device: Device, reason: Reason) -> None:
    """End a device: its credentials are revoked and it leaves its vehicle. It can be enrolled again."""
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        decommission_device(write, tenant, device, reason)
    say(f"decommissioned {device} of {tenant}; edges end its connections within 2 s")


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
    names = ["tenant", "device_id", "vehicle_id", "standing", "state", "credential", "kid", "not_after_ms"]
    if any(device.revoked_from_ms is not None and device.credential != "revoked" for device in devices):
        names.append("revoked_from_ms")  # to come: of one that is past `credential` tells, and a line is narrow
    print_records(devices, names, empty="no devices; `fleetgate device enroll` makes one")


@app.command("show")
def show_(context: typer.Context, tenant: Tenant, device: Device, as_json: AsJson = False) -> None:
    """Show one device with its credentials, its vehicles and what people decided about it, newest first."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        detail = show_device(store, tenant, device)
    if as_json:
        print_json(detail)
        return
    print_fields(detail)
    for credential in detail.credentials:  # a line of one would be wider than any terminal
        say("")
        print_fields(credential)
    say("")
    print_records(detail.bindings, ("vehicle_id", "from_ms", "to_ms"), empty="never in a vehicle")
    say("")
    print_records(detail.decisions, ("at_ms", "decision", "actor", "reason"), empty="no decisions")
    for row in detail.unreadable:
        say(str(row))
