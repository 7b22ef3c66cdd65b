"""`fleetgate quarantine`: look at cases and decide them.

Decides options; which decision is possible is decided by `control.quarantine`, how a case file reads by `cli.casefile`.
"""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from fleetgate.cli import casefile
from fleetgate.cli.console_output import AsJson, cell, print_json, print_records, say
from fleetgate.cli.moment import moment
from fleetgate.cli.session import Session, actor, session_of
from fleetgate.control.cases import list_cases, require_known, show_case_file
from fleetgate.control.quarantine import decide, release_cases
from fleetgate.control.releases import GIVES_BACK, Release, releases_of
from fleetgate.control.roster import require_device
from fleetgate.control.states import Classification, Decision
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError, FleetgateError
from fleetgate.scoring import listed_in

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
    why: Annotated[str | None, typer.Option(metavar="SIGNAL", help="Only cases of this signal alone.")] = None,
    closed: Annotated[bool, typer.Option("--all", help="Closed cases too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the cases that wait for a decision."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        cases = list_cases(store, tenant, why=why, closed=closed)
        if not cases:
            require_known(store, tenant, why)
    if as_json:
        print_json(cases)
        return
    print_records(cases, _CASE, empty="no cases" if closed else "no open cases; --all shows closed ones")
    if cases:
        say(f"{len(cases)} cases" if len(cases) > 1 else "1 case")


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
    if not samples:
        with Store.open(session.config, session.clock) as store:
            require_device(store, tenant, device)
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
def release(
    context: typer.Context,
    tenant: Tenant,
    classification: Finding,
    reason: Reason,
    device: Annotated[str | None, typer.Option(help="Device id; or all whose open case is as said by --why:")] = None,
    why: Annotated[
        str | None, typer.Option(metavar="SIGNAL", help="The signal that `list` shows, and no other beside it ...")
    ] = None,
    opened_after: Annotated[
        datetime | None,
        typer.Option(parser=moment, metavar="TIME", help="... and opened after this: 2026-12-01T08:00Z."),
    ] = None,
) -> None:
    """Let a device out of quarantine, or lift its ban; or let all out that one mistake of ours has put there, and
    nothing else that the records have heard of so far."""
    match device, why, opened_after:
        case (str(), None, None) if device:
            _decide(context, tenant, device, Decision.RELEASE, classification, reason)
        case (None, str(), datetime()) if why:
            _release_all(context, tenant, why, int(opened_after.timestamp() * 1000), classification, reason)
        case _:
            raise ConfigError("say who is released: --device, or --why and --opened-after; none of them empty")


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


def _release_all(
    context: typer.Context, tenant: str, why: str, after_ms: int, classification: Classification, reason: str
) -> None:
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store:
        recent = [case for case in list_cases(store, tenant) if case.opened_at_ms > after_ms]
        cases = [case for case in recent if case.why == why]
        if not cases:
            require_known(store, tenant, why)
        released = release_cases(store, cases, classification, actor(), reason)
    say(f"{released} devices of {tenant} are released now, of {len(cases)} such cases; edges learn it within a second")
    if more := sum(case.why != why and why in listed_in(case.why) for case in recent):
        say(f"{more} cases name {cell(why)} and another signal: their devices stay, look at each")
    if released and classification in GIVES_BACK:
        say("load copies what was held for them into events; `fleetgate quarantine show` says how much waits")


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
        say("nothing that was held is copied into events by this decision")


def _held_events(session: Session, tenant: str, device: str, releases: list[Release]) -> HeldEvents | str:
    """Or why ClickHouse does not say: a look at the case does without."""
    from fleetgate.load.held import held_events  # ClickHouse's libraries: other commands do without

    try:
        return held_events(session.config, tenant, device, releases)
    except FleetgateError as error:
        return f"what is held is not known: {error}"
