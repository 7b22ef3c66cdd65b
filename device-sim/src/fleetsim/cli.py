"""Decides the commands a person types. Each reads its arguments, calls one function, and turns errors into one line.

What the commands do is in the modules they name.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from fleetsim import attackers, cli_identities, fleet, recording, roster, swarm
from fleetsim.bundle import BundleError, read_bundle
from fleetsim.clock import Clock, virtual_clock
from fleetsim.gate import Gate, RunError, address
from fleetsim.identities import devices_in
from fleetsim.journal import JournalError
from fleetsim.ledger import Ledger, LedgerError
from fleetsim.scenarios import catalogue, page
from fleetsim.scenarios import score as scores
from fleetsim.swarm_plan import Plan
from fleetsim.swarm_work import Shape, read_bodies
from fleetsim.vectors.write import write_all

app = typer.Typer(
    help="A simulated fleet for fleetgate: honest vehicles, recorded drives, attackers, test vectors.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

app.add_typer(cli_identities.app, name="identities")

_EXPECTED = (RunError, BundleError, JournalError, LedgerError)

State = Annotated[Path, typer.Option(help="Directory of what the devices keep: epochs and signed messages.")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same vehicles and the same attacks.")]


LedgerFile = Annotated[Path, typer.Option(help="SQLite file for everything sent and its verdict.")]
Mqtt = Annotated[str, typer.Option(help="HOST:PORT of the gate's MQTT listener.")]
Https = Annotated[str, typer.Option(help="HOST:PORT of the gate's HTTPS listener.")]
ServerName = Annotated[str, typer.Option(help="The name in the gate's certificate.")]

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
def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="The recording, with a header line.")],
    device: Annotated[Path, typer.Option(help="Bundle of the device that sends it.")],
    state: State,
    map_: Annotated[list[str], typer.Option("--map", help="COLUMN=VSS.PATH[:FACTOR]; may be repeated.")],
    time: Annotated[str, typer.Option(help="Column of the time, in Unix seconds.")],
    speed: Annotated[float, typer.Option(help="How many times faster than recorded.", min=0.01)] = 1.0,
    mqtt: Mqtt = "127.0.0.1:8883",
    https: Https = "127.0.0.1:8443",
    server_name: ServerName = "localhost",
    ledger: Annotated[Path | None, typer.Option(help="Ledger; by default ledger.db in --state.")] = None,
    seed: Seed = 1,
) -> None:
    """Send a recorded drive, moved in time so that it ends now, with a message for each recorded second."""
    rows = recording.read_rows(file, time, [recording.parse_mapping(text) for text in map_])
    gate = Gate(address(mqtt, "--mqtt"), address(https, "--https"), server_name)
    with _ledger(ledger or state / "ledger.db", seed, (rows[-1].at_ms - rows[0].at_ms) / 1000 / speed) as book:
        devices = fleet.Devices(gate, state, book, _clock, seed)
        count = asyncio.run(recording.replay(devices, read_bundle(device), rows, speed))
    typer.echo(f"{len(rows)} rows in {count} messages, every one acknowledged")


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
        listed = [{"name": s.name, "says": s.says} | s.pace._asdict() for s in catalogue.SCENARIOS.values()]
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
    """Compare what is true with what was decided; exit status 1 where the gate was wrong."""
    found = scores.score(ledger, scores.read_decisions(decisions))
    if json_file is not None:
        json_file.write_bytes(scores.as_json(found))
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


@app.command("swarm")
def swarm_(
    devices: Annotated[
        Path, typer.Argument(metavar="DEVICES", help="Directory of device bundles, in order of name, or of identities.")
    ],
    connections: Annotated[int, typer.Option(help="How many connect; over MQTT each as a device of its own.", min=1)],
    seconds: Annotated[float, typer.Option(help="How long is measured; 0: only connect.", min=0)] = 10.0,
    warm_up: Annotated[float, typer.Option(help="Seconds of load before that.", min=0)] = 1.0,
    events: Annotated[int, typer.Option(help="Events (rows) in a message.", min=1)] = 1,
    signals: Annotated[int, typer.Option(help="Signals of an event.", min=1)] = 8,
    by_path: Annotated[bool, typer.Option("--by-path", help="Name signals by VSS path, not by number.")] = False,
    columns: Annotated[bool, typer.Option("--columns", help="Bodies in columns, not in rows.")] = False,
    in_flight: Annotated[int, typer.Option(help="Unacknowledged messages of a connection.", min=1, max=128)] = 1,
    rate: Annotated[float, typer.Option(help="Messages a second in all; 0: as fast as answers come.", min=0)] = 0.0,
    batch: Annotated[int, typer.Option(help="Envelopes in a POST over HTTPS; 0: MQTT.", min=0, max=500)] = 0,
    prepare: Annotated[int, typer.Option(help="Messages signed for each connection before the clock starts.")] = 0,
    handshakes: Annotated[int, typer.Option(help="Connections on their way in at once.", min=1)] = 256,
    connect_seconds: Annotated[float, typer.Option(help="Deadline for all of them to be in.", min=1)] = 120.0,
    epoch: Annotated[int, typer.Option(help="Over HTTPS: above that of earlier runs with these devices.", min=1)] = 1,
    reconnect: Annotated[bool, typer.Option("--reconnect", help="Drop all at once, and connect all again.")] = False,
    hold: Annotated[float, typer.Option(help="Seconds to stay connected before any load.", min=0)] = 0.0,
    wait: Annotated[
        bool, typer.Option("--wait", help="Prepare, say so, and connect when a line comes on stdin.")
    ] = False,
    interval: Annotated[float, typer.Option(help="Seconds between latencies told on stderr; 0: never.", min=0)] = 0.0,
    bodies: Annotated[
        Path | None, typer.Option(help="Send these instead: a file with a MessagePack array of encoded bodies.")
    ] = None,
    mqtt: Mqtt = "127.0.0.1:8883",
    https: Https = "127.0.0.1:8443",
    server_name: ServerName = "localhost",
    seed: Seed = 1,
) -> None:
    """Load a gate from thousands of connections; prints JSON, its phases on stderr; SIGTERM ends it early."""
    plan = Plan(
        address(https, "--https") if batch else address(mqtt, "--mqtt"),
        server_name,
        connections,
        Shape(events, signals, "path" if by_path else "number", "columns" if columns else "rows"),
        seconds,
        warm_up,
        in_flight,
        rate,
        batch,
        prepare,
        handshakes,
        connect_seconds,
        epoch,
        reconnect,
        hold,
        interval,
        seed,
        read_bodies(bodies) if bodies else (),
    )
    swarming = swarm.Swarm(
        plan, list(islice(devices_in(devices), connections)), lambda phase: typer.echo(phase, err=True)
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: swarming.finish_early())
    if wait:
        typer.echo("prepared", err=True)
        sys.stdin.readline()
    typer.echo(json.dumps(swarming.run(), indent=2))


def main() -> None:
    """The entry point: an expected error is one line on stderr and exit status 1."""
    try:
        app(prog_name="fleetsim")
    except _EXPECTED as error:
        typer.echo(f"fleetsim: {error}", err=True)
        sys.exit(1)
