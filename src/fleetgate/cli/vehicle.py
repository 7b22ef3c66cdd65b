"""`fleetgate vehicle`: vehicles, who they are, and how they go to another tenant.

Decides options and output; what the records allow is decided by `control.vehicles`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fleetgate.cli.console_output import AsJson, print_fields, print_json, print_records, say
from fleetgate.cli.issuing import Days, Out, Request, authority_and_keyring, hand_over, read_request, told
from fleetgate.cli.session import actor, session_of
from fleetgate.control.pki import DEVICE_DAYS
from fleetgate.control.store import Store
from fleetgate.control.vehicles import identify as identify_vehicle
from fleetgate.control.vehicles import list_vehicles, show_vehicle
from fleetgate.control.vehicles import set_vin as set_vin_of
from fleetgate.control.vehicles import transfer as transfer_vehicle

Tenant = Annotated[str, typer.Option(help="Tenant id.")]
Vehicle = Annotated[str, typer.Option(help="Vehicle id: a pseudonym, never the VIN.")]

app = typer.Typer(help="Vehicles and their history.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only vehicles of this tenant.")] = None,
    as_json: AsJson = False,
) -> None:
    """List vehicles."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        vehicles = list_vehicles(store, tenant)
    if as_json:
        print_json(vehicles)
        return
    names = ("tenant", "vehicle_id", "device_id", "created_at_ms")
    print_records(vehicles, names, empty="no vehicles; `fleetgate device enroll` makes one")


@app.command()
def show(context: typer.Context, tenant: Tenant, vehicle: Vehicle, as_json: AsJson = False) -> None:
    """Show one vehicle with the devices that sat in it, newest first."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        detail = show_vehicle(store, tenant, vehicle)
    if as_json:
        print_json(detail)
        return
    print_fields(detail)
    say("")
    print_records(detail.devices, ("device_id", "from_ms", "to_ms"), empty="never had a device")


@app.command()
def identify(context: typer.Context, tenant: Tenant, vehicle: Vehicle, as_json: AsJson = False) -> None:
    """Tell which car a vehicle is: its VIN, and where it came from and went. The audit says who asked."""
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        car = identify_vehicle(write, tenant, vehicle)
    if as_json:
        print_json(car)
        return
    print_fields(car)
    if car.transfers and (now := car.transfers[-1]) and (now.to_tenant, now.to_vehicle_id) != (tenant, vehicle):
        say(f"moved to {now.to_tenant}/{now.to_vehicle_id}: its VIN is on record there")
    say("")
    names = ("at_ms", "from_tenant", "from_vehicle_id", "to_tenant", "to_vehicle_id", "actor", "reason")
    print_records(car.transfers, names, empty="never transferred")


@app.command("set-vin")
def set_vin(
    context: typer.Context,
    tenant: Tenant,
    vehicle: Vehicle,
    vin: Annotated[str, typer.Option(help="Kept apart from telemetry; no edge can read it.")],
) -> None:
    """Note which car a vehicle is."""
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        set_vin_of(write, tenant, vehicle, vin)
    say(f"noted the VIN of {vehicle} of {tenant}; `fleetgate vehicle identify` tells it")


@app.command()
def transfer(
    context: typer.Context,
    tenant: Tenant,
    vehicle: Vehicle,
    to_tenant: Annotated[str, typer.Option(help="Tenant that the car goes to.")],
    to_vehicle: Annotated[str, typer.Option(help="Its new vehicle id there: another pseudonym.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the records.")],
    csr: Request = None,
    out: Out = None,
    days: Days = DEVICE_DAYS,
) -> None:
    """Give a vehicle to another tenant: its device is ended here, and a new one enrolled there, TO_VEHICLE-tcu."""
    session = session_of(context)
    request = read_request(csr)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        authority, keyring = authority_and_keyring(session)
        enrolment = transfer_vehicle(
            write, authority, keyring, tenant, vehicle, to_tenant, to_vehicle, reason, days, request
        )
        directory = hand_over(session, enrolment, out)
    say(
        f"transferred {vehicle} of {tenant} to {to_tenant} as {to_vehicle} with {enrolment.device_id}: "
        f"{told(directory, enrolment)}"
    )
