"""Decides the commands about prepared identities, `fleetsim identities`. What they do is in `identities`."""

from pathlib import Path
from typing import Annotated

import typer

from fleetsim.identities import Identities

app = typer.Typer(help="Devices for a whole fleet: certificates and keys in one file, enrolled in the gate.")


@app.callback()
def _group() -> None:
    """There is one command, and it has a name."""


@app.command()
def prepare(
    count: Annotated[int, typer.Option(help="How many there are to be.", min=1)],
    directory: Annotated[Path, typer.Option(help="Where they are kept; what is there already is not made again.")],
    gate: Annotated[Path, typer.Option(help="Configuration file of the gate that is to know them.")],
    tenant: Annotated[
        list[str] | None, typer.Option(help="Of this tenant; given more than once, in turn of each. By default acme.")
    ] = None,
) -> None:
    """Enrol so many devices, all but those that are there, with the gate's own command."""
    identities = Identities.prepare(gate, count, directory, tenant or ("acme",))
    typer.echo(f"{len(identities)} identities in {directory}")
