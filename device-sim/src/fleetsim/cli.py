"""Decides the commands a person types. Each reads its arguments, calls one function, and turns errors into one line.

What the commands do is in the modules they name.
"""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from fleetsim import fleet
from fleetsim.bundle import BundleError
from fleetsim.clock import Clock
from fleetsim.journal import JournalError
from fleetsim.ledger import Ledger, LedgerError
from fleetsim.vectors.write import write_all

app = typer.Typer(
    help="A simulated fleet for fleetgate: honest vehicles, recorded drives, attackers, test vectors.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_EXPECTED = (fleet.RunError, BundleError, JournalError, LedgerError)

State = Annotated[Path, typer.Option(help="Directory of what the devices keep: epochs and signed messages.")]
Seed = Annotated[int, typer.Option(help="The same seed makes the same vehicles and the same attacks.")]


@app.callback()
def _options(
    *, verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every refusal to stderr.")] = False
) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("fleetsim").setLevel(logging.INFO if verbose else logging.WARNING)


@app.command()
def run(
    fleet_file: Annotated[Path, typer.Argument(metavar="FLEET.json", help="Addresses, vehicles, attackers.")],
    ledger: Annotated[Path, typer.Option(help="SQLite file for everything sent and its verdict.")],
    state: State,
    seconds: Annotated[float, typer.Option(help="How long messages are made.", min=0.1)] = 30.0,
    interval: Annotated[float, typer.Option(help="Seconds between two messages of a vehicle.", min=0.01)] = 0.5,
    seed: Seed = 1,
) -> None:
    """Run the vehicles and attackers of FLEET.json, and wait for every answer."""
    wanted = fleet.read_fleet(fleet_file)
    gate = fleet.Gate(
        fleet.address(wanted.mqtt, f"{fleet_file}: mqtt"),
        fleet.address(wanted.https, f"{fleet_file}: https"),
        wanted.server_name,
    )
    root = fleet_file.resolve().parent
    bundles = fleet.read_bundles(root, wanted.vehicles)
    clock = Clock()
    book = Ledger(ledger, clock)
    book.note("seed", seed)
    book.note("seconds", seconds)
    book.note("started_ms", clock.now_ms())
    devices = fleet.Devices(gate, state, book, clock, seed)
    try:
        asyncio.run(fleet.drive(devices, bundles, seconds, interval, []))
    finally:
        book.note("ended_ms", clock.now_ms())
        book.close()


@app.command()
def vectors(
    directory: Annotated[Path, typer.Argument(help="Where the files go; vectors that are no more are removed.")],
) -> None:
    """Write the test vectors of the wire format: the same files at every run."""
    typer.echo(f"{write_all(directory)} vectors in {directory}")


def main() -> None:
    """The entry point: an expected error is one line on stderr and exit status 1."""
    try:
        app()
    except _EXPECTED as error:
        typer.echo(f"fleetsim: {error}", err=True)
        sys.exit(1)
