"""`fleetgate quarantine`: look at cases and decide them.

Decides options; which decision is possible is decided by `control.quarantine`, how a case file reads by `cli.casefile`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from fleetgate.cli import casefile
from fleetgate.cli.console_output import AsJson, cell, print_json, print_records, say
from fleetgate.cli.session import Session, actor, session_of
from fleetgate.control.cases import list_cases, show_case_file
from fleetgate.control.quarantine import decide
from fleetgate.control.releases import Release, releases_of
from fleetgate.control.states import Classification, Decision
from fleetgate.control.store import Store
from fleetgate.errors import FleetgateError

if TYPE_CHECKING:
    from fleetgate.load.held import HeldEvents

Tenant = Annotated[str, typer.Option(help="Tenant id.")]
Device = Annotated[str, typer.Option(help="Device id.")]
Reason = Annotated[str, typer.Option(help="Why; stands in the records.")]
Finding = Annotated[Classification, typer.Option("--classification", help="What you found out.")]

app = typer.Typer(help="Devices under suspicion.", no_args_is_help=True, rich_markup_mode=None)

_CASE = ("case_id", "tenant", "device_id", "vehicle_id", "state", "why", "score", "opened_at_ms", "closed_at_ms")


@app.command("list")
def list_(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only cases of this tenant.")] = None,
    closed: Annotated[bool, typer.Option("--all", help="Closed cases too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the cases that wait for a decision."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        cases = list_cases(store, tenant, closed=closed)
    if as_json:
        print_json(cases)
        return
    print_records(cases, _CASE, empty="no cases" if closed else "no open cases; --all shows closed ones")


@app.command()
def show(context: typer.Context, tenant: Tenant, device: Device, as_json: AsJson = False) -> None:
    """Show a device's case file: what it did, how often exactly, what was decided, and the samples that were kept."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        file = show_case_file(store, tenant, device, session.clock.now_ms())
        releases = releases_of(store, tenant, device)
    found = casefile.gather(session.config, file)
    held = _held_events(session, tenant, device, releases)
    if as_json:
        print_json(casefile.document(found) | {"held_events": None if isinstance(held, str) else held})
        return
    casefile.tell(found)
    say("")
    say(cell(held) if isinstance(held, str) else f"held events: {held.held}")
    if not isinstance(held, str) and held.decisions:
        print_records(held.decisions, ("decision", "released", "waiting"), empty="")


@app.command()
def evidence(
    context: typer.Context,
    tenant: Tenant,
    device: Device,
    as_json: AsJson = False,
    raw: Annotated[
        int | None, typer.Option("--raw", metavar="NUMBER", help="Write the bytes of this sample, as they came.")
    ] = None,
) -> None:
    """List the samples that this edge kept of a device's refused messages; export them with --json or --raw."""
    session = session_of(context)
    samples = casefile.samples_of(session.config, tenant, device)
    if raw is not None:
        sample = casefile.sample_of(samples, raw)
        sys.stdout.buffer.write(sample.raw)
        if sample.size > len(sample.raw):
            typer.echo(f"only the first {len(sample.raw)} of its {sample.size} bytes were kept", err=True)
    elif as_json:
        print_json([casefile.export(sample) for sample in samples])
    else:
        casefile.tell_samples(samples)


@app.command()
def release(context: typer.Context, tenant: Tenant, device: Device, classification: Finding, reason: Reason) -> None:
    """Let a device out of quarantine, or lift its ban."""
    _decide(context, tenant, device, Decision.RELEASE, classification, reason)


@app.command()
def ban(
    context: typer.Context,
    tenant: Tenant,
    device: Device,
    reason: Reason,
    classification: Finding = Classification.CONFIRMED,
) -> None:
    """Keep a device out, on live connections too."""
    _decide(context, tenant, device, Decision.BAN, classification, reason)


def _decide(
    context: typer.Context,
    tenant: str,
    device: str,
    decision: Decision,
    classification: Classification,
    reason: str,
) -> None:
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store:
        before = {release.decision for release in releases_of(store, tenant, device)}
        after = decide(store, tenant, device, decision, classification, actor(), reason)
        given_back = [one for one in releases_of(store, tenant, device) if one.decision not in before]
    say(f"{device} of {tenant} is {after} now; edges learn it within a second")
    for one in given_back:
        told = f"load copies what was held for it into events, by decision {one.decision}"
        say(cell(f"{told}; `fleetgate quarantine show` says how much waits"))
    if not given_back:
        say("what was held stays in held_events")


def _held_events(session: Session, tenant: str, device: str, releases: list[Release]) -> HeldEvents | str:
    """Or why ClickHouse does not say: a look at the case does without."""
    from fleetgate.load.held import held_events  # ClickHouse's libraries: other commands do without

    try:
        return held_events(session.config, tenant, device, releases)
    except FleetgateError as error:
        return f"what is held is not known: {error}"
