"""`fleetgate demo`: options, and how its result is told."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import trio
import typer
from rich.console import Console
from rich.table import Table

from fleetgate import log
from fleetgate.errors import CheckFailed, ConfigError, FleetgateError, first_of

if TYPE_CHECKING:
    from fleetgate.demo.reconcile import Report
    from fleetgate.demo.scenario import Scenario
    from fleetgate.demo.stage import Plan

VEHICLES = 60


def demo(
    scenario: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run this scenario instead (`fleetsim scenarios`), and score it.")
    ] = None,
    vehicles: Annotated[
        int | None, typer.Option(min=1, max=5000, help="Honest vehicles; 60, or those of the scenario.")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(min=1, max=1000, help="Of a scenario: how many times as fast its clock runs.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long the fleet drives.")] = 30.0,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between two messages of a vehicle.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Same seed, same fleet.")] = 1,
    kill_edge_at: Annotated[float | None, typer.Option(help="kill -9 the edge after so many seconds.")] = None,
    kill_load_at: Annotated[float | None, typer.Option(help="kill -9 load after so many seconds.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report here, as JSON.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Run in this new directory and keep it.")] = None,
) -> None:
    """Run the whole gate with a simulated fleet and attackers, then reconcile what was sent with what was stored."""
    from fleetgate.demo import scenario as scenarios
    from fleetgate.demo import stage

    found = scenarios.find(scenario, vehicles, speed) if scenario is not None else None
    if report is not None:
        _write(report, b"")  # nobody waits for a run whose report has no place
    console = Console()
    log.configure("demo", "error")  # what gate and fleet log stands in their own files
    directory = keep if keep is not None else Path(tempfile.mkdtemp(prefix="fleetgate-demo-"))
    plan = stage.Plan(seconds, seed, interval, kill_edge_at, kill_load_at)
    with _kept_for_a_look(console, directory):
        if found is not None:
            _scenario(console, found, seed, directory, report)
        else:
            _reconciled(console, vehicles or VEHICLES, plan, directory, report)
    if keep is None:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        console.print(f"everything is in {directory}")


@contextmanager
def _kept_for_a_look(console: Console, directory: Path) -> Iterator[None]:
    """What a run that failed leaves is not removed."""
    try:
        yield
    except BaseExceptionGroup as group:
        console.print(f"kept for you to look at: {directory}")
        raise first_of(group) from group
    except FleetgateError:
        console.print(f"kept for you to look at: {directory}")
        raise


def _scenario(console: Console, found: Scenario, seed: int, directory: Path, report: Path | None) -> None:
    """Raises CheckFailed when the gate was wrong."""
    from fleetgate.demo import prepare
    from fleetgate.demo import scenario as scenarios

    console.print(
        f"[bold]{found.name}[/]: {found.says}\n{found.vehicles} vehicles at {found.speed:g} times the machine's time, "
        f"{(found.before_s + found.trouble_s) / 3600:.1f} h in {found.seconds / 60:.1f} minutes",
        highlight=False,
    )
    with console.status(f"enrolling {found.vehicles} vehicles"):
        config, config_file, fleet_file = prepare.prepare(directory.resolve(), found.vehicles, found.speed)
    trio.run(scenarios.run, config, config_file, fleet_file, found, seed, console)
    told, problems, as_json = scenarios.scored(directory)
    if report is not None:
        _write(report, as_json)
    console.print(*told, sep="\n", highlight=False, markup=False)
    if problems:
        raise CheckFailed(problems)


def _reconciled(console: Console, vehicles: int, plan: Plan, directory: Path, report: Path | None) -> None:
    """Raises CheckFailed when something was lost, doubled or let through."""
    from fleetgate.demo import prepare, stage

    with console.status(f"enrolling {vehicles} vehicles and {len(prepare.ATTACKS)} attackers"):
        config, config_file, fleet_file = prepare.prepare(directory.resolve(), vehicles)
    result = trio.run(stage.run, config, config_file, fleet_file, plan, console)
    if report is not None:
        _write(report, msgspec.json.format(msgspec.json.encode(result.report)) + b"\n")
    for title, lines in result.examples:
        console.print(f"[bold]{title}[/]", *(f"  {line}" for line in lines), sep="\n", highlight=False)
    _tell(console, result.report)
    for line in _kills(plan, result.report):
        console.print(line, highlight=False)
    if problems := result.report.problems():
        raise CheckFailed("; ".join(problems))
    console.print("[green]nothing acknowledged was lost or doubled, every attack was caught[/]")


def _write(report: Path, content: bytes) -> None:
    try:
        report.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"--report: cannot write {report}: {error.strerror}") from None


def _kills(plan: Plan, report: Report) -> list[str]:
    """A line for each kill that was asked for."""
    told = []
    for name, at_s in (("edge", plan.kill_edge_at), ("load", plan.kill_load_at)):
        if name in report.killed_at_s:
            told.append(f"{name} was killed (kill -9) after {report.killed_at_s[name]:.1f} s, and started again")
        elif at_s is not None:
            told.append(f"{name} was not killed: at {at_s:g} s the fleet had ended, or {name} was not running")
    return told


def _tell(console: Console, report: Report) -> None:
    table = Table(title="what was sent, and what became of it", title_justify="left", show_header=False, min_width=72)
    table.add_column("", width=34)
    table.add_column("", justify="right", width=12)
    table.add_column("", width=22)
    table.add_row("honest messages sent", str(report.sent.messages), f"{report.sent.events} events")
    table.add_row("acknowledged", str(report.acked.messages), f"{report.acked.events} events")
    table.add_row("their rows in ClickHouse", "", f"{report.stored['events']} events")
    for name in ("lost", "duplicated", "cross_tenant", "false_rejections"):
        count = getattr(report, name)
        table.add_row(name.replace("_", " "), f"[{'red' if count else 'green'}]{count}[/]", "")
    for kind, attack in report.attacks.items():
        colour = "green" if attack.caught == attack.sent and attack.sent else "red"
        within = ", within its rate" if kind == "flood" else ""
        caught = f"caught{within}" if attack.sent else "sent nothing"
        table.add_row(f"attack: {kind}", f"[{colour}]{attack.caught}/{attack.sent}[/]", caught)
    right = report.quarantined["expected"] == report.quarantined["actual"]
    actual, expected = len(report.quarantined["actual"]), len(report.quarantined["expected"])
    table.add_row(
        "devices in quarantine",
        f"[{'green' if right else 'red'}]{actual}[/]",
        "as expected" if right else f"{expected} were expected",
    )
    for name, times in (("sent to acknowledged", report.ack_ms), ("received to queryable", report.queryable_ms)):
        table.add_row(name, f"p50 {times.get('p50', 0):.0f} ms", f"p99 {times.get('p99', 0):.0f} ms")
    console.print(table)
