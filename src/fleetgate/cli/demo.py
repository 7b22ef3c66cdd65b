"""`fleetgate demo`: options, and how its result is told."""

from __future__ import annotations

import shutil
import signal
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
from fleetgate.cli import console_output
from fleetgate.errors import CheckFailed, ConfigError, first_of

if TYPE_CHECKING:
    from fleetgate.demo.reconcile import Report
    from fleetgate.demo.scenario import Scenario
    from fleetgate.demo.stage import Plan

VEHICLES = 60
SECONDS = 30.0
INTERVAL_SECONDS = 0.5


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
    seconds: Annotated[float | None, typer.Option(min=1, max=3600, help="How long the fleet drives; 30.")] = None,
    interval: Annotated[
        float | None, typer.Option(min=0.05, help="Seconds between two messages of a vehicle; 0.5.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same fleet.")] = 1,
    kill_edge_at: Annotated[float | None, typer.Option(help="kill -9 the edge after so many seconds.")] = None,
    kill_load_at: Annotated[float | None, typer.Option(help="kill -9 load after so many seconds.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report here, as JSON.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Run in this new directory and keep it.")] = None,
) -> None:
    """Run the whole gate with a simulated fleet and attackers, then reconcile what was sent with what was stored."""
    from fleetgate.demo import scenario as scenarios
    from fleetgate.demo import stage

    _only_of(
        scenario, speed=speed, seconds=seconds, interval=interval, kill_edge_at=kill_edge_at, kill_load_at=kill_load_at
    )
    found = scenarios.find(scenario, vehicles, speed) if scenario is not None else None
    if report is not None:
        _write(report, b"")  # nobody waits for a run whose report has no place
    console = console_output.console()
    log.configure("demo", "error")  # what gate and fleet log stands in their own files
    plan = stage.Plan(seconds or SECONDS, seed, interval or INTERVAL_SECONDS, kill_edge_at, kill_load_at)
    with _place(console, keep) as directory:
        if found is not None:
            _scenario(console, found, seed, directory, report)
        else:
            _reconciled(console, vehicles or VEHICLES, plan, directory, report)


def _only_of(scenario: str | None, *, speed: float | None, **of_a_drive: float | None) -> None:
    """Raises ConfigError for an option that this run would not heed."""
    if scenario is None and speed is not None:
        raise ConfigError("--speed is for a scenario: name one with --scenario, or leave it out")
    given = [f"--{name.replace('_', '-')}" for name, value in of_a_drive.items() if value is not None]
    if scenario is not None and given:
        raise ConfigError(f"{', '.join(given)}: a scenario goes as it is written, at --speed; leave out what is named")


@contextmanager
def _place(console: Console, keep: Path | None) -> Iterator[Path]:
    """The directory of the run. What a run that failed leaves is kept; of one that somebody ended, nothing is."""
    # Trio has a way with SIGINT. A script's background job would ignore it, and with it what SIGTERM is turned into.
    former = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT)),
    }
    directory = keep if keep is not None else Path(tempfile.mkdtemp(prefix="fleetgate-demo-"))
    kept = keep is not None
    try:
        yield directory
    except BaseException as error:
        group = error if isinstance(error, BaseExceptionGroup) else None
        ended = isinstance(error, KeyboardInterrupt) or (group is not None and group.subgroup(KeyboardInterrupt))
        kept = kept or not ended
        if kept:
            console.print(f"kept for you to look at: {directory}")
        if group is not None:
            raise (KeyboardInterrupt() if ended else first_of(group)) from group
        raise
    else:
        if kept:
            console.print(f"everything is in {directory}")
    finally:
        if not kept:
            shutil.rmtree(directory, ignore_errors=True)
        for number, handler in former.items():
            signal.signal(number, handler)


def _scenario(console: Console, found: Scenario, seed: int, directory: Path, report: Path | None) -> None:
    """Raises CheckFailed when the gate was wrong."""
    from fleetgate.demo import prepare
    from fleetgate.demo import scenario as scenarios

    console.print(
        f"[bold]{found.name}[/]: {found.says}\n{found.vehicles} vehicles at {found.speed:g} times the machine's time, "
        f"{(found.before_s + found.trouble_s) / 3600:.1f} h in {found.seconds / 60:.1f} minutes",
        highlight=False,
    )
    if found.vehicles < found.least_vehicles:
        console.print(
            f"fewer than {found.least_vehicles} vehicles: the part of the fleet that this befalls may be too small for "
            "the alert that is due to come, or to come in time",
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
    sent = _table("what was sent, and what became of it", "messages", "events")
    sent.add_row("honest, sent", f"{report.sent.messages:,}", f"{report.sent.events:,}")
    sent.add_row("acknowledged", f"{report.acked.messages:,}", f"{report.acked.events:,}")
    sent.add_row("stored in ClickHouse", "", f"{report.stored['events']:,}")
    for name, messages, events in (
        ("lost", "", report.lost),
        ("duplicated", "", report.duplicated),
        ("under a wrong tenant", "", report.cross_tenant),
        ("honest, and refused", report.false_rejections, ""),
    ):
        sent.add_row(name, _zero(messages), _zero(events))
    attacks = _table("attacks", "hostile acts", "caught")
    for kind, attack in report.attacks.items():
        colour = "green" if attack.caught == attack.sent and attack.sent else "red"
        name = f"{kind} (caught: within its rate)" if kind == "flood" else kind
        attacks.add_row(name, f"{attack.sent:,}", f"[{colour}]{attack.caught:,}[/]")
    actual, expected = (set(report.quarantined[name]) for name in ("actual", "expected"))
    attacks.add_row(
        "devices in quarantine",
        f"{len(expected)} expected",
        f"[{'green' if actual == expected else 'red'}]{len(actual)}[/]",
    )
    times = _table("how long it took", "half within", "99 % within")
    for name, took in (
        ("sent to acknowledged", report.ack_ms),
        ("received to queryable", report.queryable_ms),
    ):
        times.add_row(name, f"{took.get('p50', 0):,.0f} ms", f"{took.get('p99', 0):,.0f} ms")
    for table in (sent, attacks, times):
        console.print(table)


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", min_width=72)
    table.add_column("", width=34)
    for heading in headings:
        table.add_column(heading, justify="right", width=14)
    return table


def _zero(count: int | str) -> str:
    """A count that is nothing, where all is well."""
    return f"[{'red' if count else 'green'}]{count:,}[/]" if isinstance(count, int) else count
