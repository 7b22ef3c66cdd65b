"""`fleetgate keyring`: the MAC root keys, and going over from one to the next.

Decides options and output; when a root key may be added or ended is decided by `control.rotation`. Run it as the user
that owns the keyring file.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from fleetgate.cli.console_output import AsJson, print_json, print_records, say
from fleetgate.cli.session import actor, session_of
from fleetgate.control.rotation import list_roots
from fleetgate.control.rotation import retire as retire_root
from fleetgate.control.rotation import rotate as rotate_root
from fleetgate.control.rotation import withdraw as withdraw_root
from fleetgate.control.store import Store

Kid = Annotated[int, typer.Argument(help="Key id, as `fleetgate keyring list` shows it.")]

app = typer.Typer(help="MAC root keys.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the root keys, and how many credentials are under each."""
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        roots = list_roots(store, session.config.path(session.config.edge.keyring))
    if as_json:
        print_json(roots)
        return
    print_records(roots, ("kid", "state", "created_at_ms", "credentials", "needed_until_ms"), empty="no root keys")


@app.command()
def rotate(context: typer.Context) -> None:
    """Add a root key, which credentials are made under from now on. The others go on verifying."""
    session = session_of(context)
    path = session.config.path(session.config.edge.keyring)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        kid = rotate_root(write, path, os.urandom)
    say(f"made root key {kid} in {path}; devices come under it as they renew; back the file up")


@app.command()
def retire(context: typer.Context, kid: Kid) -> None:
    """End a root key that no credential is under any more. It stays in the file, to prove old messages with."""
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        retire_root(write, session.config.path(session.config.edge.keyring), kid)
    say(f"retired root key {kid}; edges refuse what is signed under it within seconds")


@app.command()
def withdraw(
    context: typer.Context, kid: Kid, reason: Annotated[str, typer.Option(help="Why; stands in the records.")]
) -> None:
    """End a root key at once because others have it, whoever is still under it. For an emergency."""
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store, store.write(actor()) as write:
        count = withdraw_root(write, session.config.path(session.config.edge.keyring), kid, reason)
    say(
        f"withdrew root key {kid}; edges refuse what is signed under it within seconds; "
        f"{count} devices are refused until they renew or are renewed"
    )
