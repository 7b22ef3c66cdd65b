"""`fleetgate breaker`: which cohorts the edges hold out of quarantine, and a person's word about one.

Decides options and output; what may be said is decided by `control.breaker`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer
from msgspec import Struct

from fleetgate.accept.known import ISSUER_DIGITS
from fleetgate.accept.tls import trust_bundle
from fleetgate.cli.console_output import AsJson, cell, print_json, print_records, print_table, say, show
from fleetgate.cli.session import actor, session_of
from fleetgate.config import Config
from fleetgate.control.breaker import Override, list_overrides, set_mode
from fleetgate.control.cohorts import Cohort, CohortKind, Mode
from fleetgate.control.edgealerts import EdgeAlert, list_alerts
from fleetgate.control.profile import key_digest_of
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError, FleetgateError

Tenant = Annotated[str | None, typer.Option(help="All devices of this tenant ...")]
Software = Annotated[str | None, typer.Option(help="... or of them those that run this version.")]
Issuer = Annotated[str | None, typer.Option(help="Or all devices under this CA, of every tenant, as `list` names it.")]
Reason = Annotated[str, typer.Option(help="Why; stands in the audit.")]

app = typer.Typer(help="Whole cohorts in trouble at once.", no_args_is_help=True, rich_markup_mode=None)

_ALERT = ("kind", "tenant", "whose", "vehicles", "size", "entered", "signals", "opened", "closed")
_OVERRIDE = ("mode", "tenant", "kind", "name", "at_ms", "actor", "reason")


class Report(Struct, frozen=True):
    """`alerts` are those that edges have raised, `overrides` what people said."""

    alerts: list[EdgeAlert]
    overrides: list[Override]


@app.command("list")
def list_(
    context: typer.Context,
    closed: Annotated[bool, typer.Option("--all", help="What is over, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the cohorts in trouble, and what people have said of cohorts."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        report = Report(list_alerts(store, closed=closed), list_overrides(store))
    if as_json:
        print_json(report)
        return
    empty = "no cohort is in trouble" if not closed else "no cohort ever was"
    print_table(_ALERT, map(_row, report.alerts), empty=empty)
    say("")
    print_records(report.overrides, _OVERRIDE, empty="nobody has said anything: the edges decide (auto)")


def _row(alert: EdgeAlert) -> list[str]:
    """`size` is that of the cohort when it opened; `entered` are those that were in quarantine before it was held."""
    numbers = (alert.detail.get(name) for name in ("vehicles", "size", "entered"))
    signals = [str(word) for name, word in alert.detail.items() if name.startswith("signal_")]
    return [
        *(alert.kind, alert.tenant or "all", alert.cohort or "all"),
        *("-" if number is None else f"{float(number):.0f}" for number in numbers),
        ", ".join(signals) or "-",
        *(show("at_ms", at_ms) for at_ms in (alert.opened_at_ms, alert.closed_at_ms)),
    ]


@app.command()
def hold(
    context: typer.Context, reason: Reason, tenant: Tenant = None, software: Software = None, issuer: Issuer = None
) -> None:
    """Watch devices of a cohort instead of putting them into quarantine, but for clones."""
    _say(context, Mode.HOLD, tenant, software, issuer, reason)


@app.command()
def off(
    context: typer.Context, reason: Reason, tenant: Tenant = None, software: Software = None, issuer: Issuer = None
) -> None:
    """Let devices of a cohort go into quarantine, however many they are."""
    _say(context, Mode.OFF, tenant, software, issuer, reason)


@app.command()
def auto(
    context: typer.Context, reason: Reason, tenant: Tenant = None, software: Software = None, issuer: Issuer = None
) -> None:
    """Take back what was said of a cohort."""
    _say(context, Mode.AUTO, tenant, software, issuer, reason)


def _say(
    context: typer.Context, mode: Mode, tenant: str | None, software: str | None, issuer: str | None, reason: str
) -> None:
    cohort = _cohort(tenant, software, issuer)
    session = session_of(context)
    trusted = _trusted(session.config) if cohort.kind is CohortKind.ISSUER else frozenset()
    with Store.open(session.config, session.clock, write=True) as store:
        set_mode(store, cohort, mode, actor(), reason, trusted)
    who = str(cohort) or "all devices"
    of_whom = f" of {cohort.tenant}" if cohort.tenant else ""
    say(f"{who}{of_whom}: {_MEANS[mode]}; edges learn it within a second")
    if cohort.kind is CohortKind.SOFTWARE and mode is not Mode.AUTO:
        say(cell(_who_runs(session.config, cohort.tenant, cohort.name)))


def _trusted(config: Config) -> frozenset[str]:
    """The CAs that may vouch for devices, as cohorts name them; none where this machine has no bundle."""
    with suppress(ConfigError):
        return frozenset(key_digest_of(ca.public_key()).hex()[:ISSUER_DIGITS] for ca in trust_bundle(config))
    return frozenset()


def _who_runs(config: Config, tenant: str, software: str) -> str:
    """A version may be announced before a device runs it; a mistyped one is no other."""
    from fleetgate.load.running import devices_by_software  # ClickHouse's libraries: other commands do without

    try:
        found = devices_by_software(config, tenant)
    except FleetgateError as error:
        return f"whether a device runs {software} is not known: {error}"
    if software in found:
        return f"{found[software]} devices ran {software} in the last day"
    others = ", ".join(sorted(found, key=lambda name: -found[name])[:5]) or "nothing"
    return f"no device of {tenant} ran {software} in the last day; they ran {others}"


_MEANS = {
    Mode.HOLD: "held, whoever's score says quarantine is watched",
    Mode.OFF: "not held, whoever's score says quarantine goes there",
    Mode.AUTO: "as the edges decide",
}


def _cohort(tenant: str | None, software: str | None, issuer: str | None) -> Cohort:
    """What is given and empty says no cohort: left out, it would widen the word. Raises ConfigError."""
    match tenant, software, issuer:
        case (str(), None, None) if tenant:
            return Cohort(CohortKind.TENANT, tenant, "")
        case (str(), str(), None) if tenant and software:
            return Cohort(CohortKind.SOFTWARE, tenant, software)
        case (None, None, str()) if issuer:
            return Cohort(CohortKind.ISSUER, "", issuer)
        case _:
            raise ConfigError("say which cohort: --tenant, --tenant and --software, or --issuer; none of them empty")
