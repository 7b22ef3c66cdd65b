"""Decides the commands a person types. Each reads its arguments, calls one function, and turns errors into one line.

What the commands do is in the modules they name.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fleetsim import attackers, cli_identities, fleet, roster
from fleetsim.bundle import BundleError
from fleetsim.cli_options import Https, LedgerFile, Mqtt, Seed, ServerName, State
from fleetsim.cli_swarm import swarm
from fleetsim.clock import Clock, virtual_clock
from fleetsim.gate import Gate, InputError, RunError, address
from fleetsim.journal import JournalError
from fleetsim.ledger import Ledger, LedgerError
from fleetsim.plots import draw as plots_
from fleetsim.plots import recorded
from fleetsim.record import Recorder, read_roots
from fleetsim.replay import choose_senders, play_of, send
from fleetsim.scenarios import catalogue, page
from fleetsim.scenarios import score as scores
from fleetsim.vectors.write import write_all

app = typer.Typer(
    help="A simulated fleet for fleetgate: honest vehicles, recorded drives, attackers, test vectors.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(cli_identities.app, name="identities")
app.command()(swarm)

_EXPECTED = (RunError, BundleError, JournalError, LedgerError)

_CLOCK_VARIABLE = "FLEETGATE_TEST_CLOCK"

_clock = Clock()


def _virtual_clock() -> Clock:
    setting = os.environ.get(_CLOCK_VARIABLE)
    if setting is None:
        raise RunError(f"{_CLOCK_VARIABLE} is not set: a scenario runs on the virtual clock of its gate")
    try:
        return virtual_clock(setting)
    except ValueError:
        raise RunError(f'{_CLOCK_VARIABLE} must be "<unix ms or now>,<speed>[,<monotonic s>]"') from None


@contextmanager
def _ledger(path: Path, seed: int, seconds: float) -> Iterator[Ledger]:
    book = Ledger(path, _clock)
    book.note("seed", seed)
    book.note("seconds", seconds)
    book.note("started_ms", _clock.now_ms())
    try:
        yield book
    finally:
        book.note("ended_ms", _clock.now_ms())
        book.close()


@app.callback()
def _options(
    *, verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every refusal to stderr.")] = False
) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("fleetsim").setLevel(logging.INFO if verbose else logging.WARNING)


@app.command()
def run(
    fleet_file: Annotated[Path, typer.Argument(metavar="FLEET.json", help="Addresses, vehicles, attackers.")],
    ledger: LedgerFile,
    state: State,
    seconds: Annotated[float, typer.Option(help="How long messages are made.", min=0.1)] = 30.0,
    interval: Annotated[float, typer.Option(help="Seconds between two messages of a vehicle.", min=0.01)] = 0.5,
    seed: Seed = 1,
) -> None:
    """Run the vehicles and attackers of FLEET.json, and wait for every answer."""
    wanted = roster.read_fleet(fleet_file)
    gate = roster.gate_of(wanted, fleet_file)
    root = fleet_file.resolve().parent
    with _ledger(ledger, seed, seconds) as book:
        devices = fleet.Devices(gate, state, book, _clock, seed)
        bundles = roster.read_bundles(root, wanted.vehicles)
        stages = [roster.read_stage(root, entry, gate, book, _clock, seed, seconds) for entry in wanted.attackers]
        asyncio.run(fleet.drive(devices, bundles, seconds, interval, stages))


@app.command()
def record(
    spool: Annotated[Path, typer.Argument(metavar="SPOOL", help="Directory of an edge's spool.")],
    keyring: Annotated[Path, typer.Option(help="The gate's MAC root keys: what is not authentic is left out.")],
    out: Annotated[Path, typer.Option(help="New file for the recording.")],
    seconds: Annotated[float, typer.Option(help="Take what comes in for so long, too.", min=0)] = 0.0,
) -> None:
    """Record what a fleet said, from an edge's spool; whose messages they were is not in the recording."""
    recorder = Recorder(read_roots(keyring))
    span = recorder.record(spool, seconds, out)
    typer.echo(f"{span.messages} messages of {span.vehicles} vehicles in {span.until_ms / 1000:.0f} s")
    if left_out := recorder.told():
        typer.echo(f"left out: {left_out}")


@app.command()
def replay(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `record` wrote; or a drive in CSV, with a header.")
    ],
    state: State,
    device: Annotated[
        list[Path] | None, typer.Option(help="Bundle of a device that sends; one for each vehicle.")
    ] = None,
    identities: Annotated[Path | None, typer.Option(help="Directory of identities that send instead.")] = None,
    map_: Annotated[list[str] | None, typer.Option("--map", help="Of a drive, COLUMN=VSS.PATH[:FACTOR].")] = None,
    time: Annotated[str, typer.Option(help="Of a drive, the column of the time, in Unix seconds.")] = "time",
    speed: Annotated[float, typer.Option(help="How many times faster than recorded.", min=0.01)] = 1.0,
    mqtt: Mqtt = "127.0.0.1:8883",
    https: Https = "127.0.0.1:8443",
    server_name: ServerName = "localhost",
    ledger: Annotated[Path | None, typer.Option(help="Ledger; by default ledger.db in --state.")] = None,
    seed: Seed = 1,
) -> None:
    """Send a recording, moved in time so that it ends now: a message for each, or for each second of a drive."""
    play = play_of(file, time, map_ or [])
    gate = Gate(address(mqtt, "--mqtt"), address(https, "--https"), server_name)
    senders = choose_senders(play.vehicles, device or [], identities)
    with _ledger(ledger or state / "ledger.db", seed, play.until_ms / 1000 / speed) as book:
        devices = fleet.Devices(gate, state, book, _clock, seed)
        count = asyncio.run(send(devices, senders, play, speed))
    typer.echo(f"{count} messages of {play.vehicles} vehicles, every one acknowledged")


@app.command()
def attack(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {', '.join(attackers.KINDS)}.")],
    device: Annotated[Path, typer.Option(help="Bundle of the attacking device.")],
    ledger: LedgerFile,
    other: Annotated[Path | None, typer.Option(help="Bundle of the victim, where the attack needs one.")] = None,
    mqtt: Mqtt = "127.0.0.1:8883",
    https: Https = "127.0.0.1:8443",
    server_name: ServerName = "localhost",
    seconds: Annotated[float, typer.Option(help="How long it may take.", min=1)] = 30.0,
    seed: Seed = 1,
) -> None:
    """Run one attack, and say what the gate answered."""
    gate = Gate(address(mqtt, "--mqtt"), address(https, "--https"), server_name)
    with _ledger(ledger, seed, seconds) as book:
        entry = roster.AttackerEntry(kind, str(device), str(other) if other else None)
        stage = roster.read_stage(Path.cwd(), entry, gate, book, _clock, seed, seconds)
        asyncio.run(fleet.attack(stage, book, _clock))
        for answer, count in book.answers(kind):
            typer.echo(f"{count:6d}  {answer}")


@app.command()
def vectors(
    directory: Annotated[Path, typer.Argument(help="Where the files go; vectors that are no more are removed.")],
) -> None:
    """Write the test vectors of the wire format: the same files at every run."""
    typer.echo(f"{write_all(directory)} vectors in {directory}")


@app.command()
def scenarios(
    *, as_json: Annotated[bool, typer.Option("--json", help="And how each goes by default, as JSON.")] = False
) -> None:
    """Print the scenarios: a name, and what happens."""
    if as_json:
        listed = [
            {"name": s.name, "says": s.says, "least_vehicles": s.least_vehicles} | s.pace._asdict()
            for s in catalogue.SCENARIOS.values()
        ]
        typer.echo(json.dumps(listed, indent=2))
    else:
        for each in catalogue.SCENARIOS.values():
            typer.echo(f"{each.name:16} {each.says}")


@app.command()
def scenario(
    name: Annotated[str, typer.Argument(metavar="NAME", help="See `fleetsim scenarios`.")],
    fleet_file: Annotated[Path, typer.Argument(metavar="FLEET.json", help="Addresses, and the vehicles to use.")],
    ledger: Annotated[Path, typer.Option(help="SQLite file for what is true of this run; it is written anew.")],
    seed: Seed = 1,
) -> None:
    """Run a scenario on the clock of FLEETGATE_TEST_CLOCK, the same as its gate's; write down what is true of it."""
    wanted, chosen = roster.read_fleet(fleet_file), catalogue.find(name)
    gate = roster.gate_of(wanted, fleet_file)
    clock = _virtual_clock()
    bundles = roster.read_bundles(fleet_file.resolve().parent, wanted.vehicles)
    pace = chosen.pace._replace(vehicles=len(bundles), speed=clock.speed)
    world = catalogue.run(chosen, pace, gate, bundles, clock, seed)
    world.truth.save(ledger, world.devices)


@app.command()
def score(
    ledger: Annotated[Path, typer.Argument(metavar="LEDGER", help="What is true of a run.")],
    decisions: Annotated[Path, typer.Argument(metavar="DECISIONS.json", help="What the gate decided in it.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the score here, too.")] = None,
) -> None:
    """Compare what is true with what was decided; exit status 1 where the gate was wrong, 2 where a file is no good."""
    found = scores.score(ledger, scores.read_decisions(decisions))
    if json_file is not None:
        scores.write(found, json_file)
    for line in scores.lines(found):
        typer.echo(line)
    if problems := found.problems():
        raise RunError("; ".join(problems))


@app.command("scenario-page")
def scenario_page(
    files: Annotated[list[Path], typer.Argument(metavar="SCORE.json...", help="Scores, as `score --json` wrote them.")],
) -> None:
    """Print docs/reference/scenarios.md."""
    typer.echo(page.page(scores.read_scores(files)), nl=False)


@app.command()
def plots(
    directory: Annotated[Path, typer.Argument(help="Where the pictures go.")],
    recording: Annotated[
        Path | None, typer.Option(help="CSV file with epoch (Unix seconds), speed (m/s) and hdop, to compare with.")
    ] = None,
    vehicles: Annotated[int, typer.Option(help="Vehicles in the fleet.", min=200)] = plots_.Extent().vehicles,
    hours: Annotated[float, typer.Option(help="Hours that they are watched.", min=2)] = plots_.Extent().hours,
    seed: Seed = 1,
) -> None:
    """Draw the simulated fleet beside a recorded drive and published figures; tell the figures. Needs matplotlib."""
    drive = recorded.read(recording) if recording else None
    extent = plots_.Extent(vehicles, hours)
    typer.echo(f"{'':48} {'here':>8} {'measured':>8}")
    for line in plots_.draw(directory, drive, extent, seed):
        typer.echo(line)


def main() -> None:
    """The entry point: an expected error is one line on stderr and exit status 1, or 2 for input that is no good."""
    try:
        app(prog_name="fleetsim")
    except _EXPECTED as error:
        typer.echo(f"fleetsim: {error}", err=True)
        sys.exit(2 if isinstance(error, InputError) else 1)
