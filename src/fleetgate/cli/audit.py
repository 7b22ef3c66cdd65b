"""`fleetgate audit`: who changed what in the records, when, and why.

Decides options and output; what stands there is decided by whoever made the change, in `control`.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fleetgate.cli.console_output import AsJson, cell, label, print_json, say, say_wrapped, show
from fleetgate.cli.session import actor, session_of
from fleetgate.control.audit import AuditEntry, Unreadable, list_rows
from fleetgate.control.auditheads import begin_anew, chain_of
from fleetgate.control.signing import SignerClient
from fleetgate.control.store import Store

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def audit(
    context: typer.Context,
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None,
    device: Annotated[str | None, typer.Option(help="Only of devices with this id.")] = None,
    last: Annotated[int, typer.Option(min=1, help="At most so many entries.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show who changed what in the control records, and why, newest first."""
    if context.invoked_subcommand is not None:
        return
    session = session_of(context)
    with Store.open(session.config, session.clock) as store:
        entries = list_rows(store, tenant, device, last)
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        say_wrapped(_told(entry), indent="")
    if not entries:
        say("no entries")


@app.command()
def restored(
    context: typer.Context, reason: Annotated[str, typer.Option(help="Why, from which copy; stands in the records.")]
) -> None:
    """Say that the control records were restored from a backup: without that, no head of a shorter audit is signed.
    The signer must run: it says what was signed before."""
    session = session_of(context)
    signer = session.config.signer
    client = SignerClient(session.config.path(signer.socket), session.config.path(signer.audit_public_key))
    with Store.open(session.config, session.clock, write=True) as store:
        last = client.newest_audit()
        with store.write(actor()) as write:
            begin_anew(write, reason, last)
        found = chain_of(store)
    assert found is not None
    say("the audit goes on as a new chain; keep its name, which lets pass what is lost of the former one and no more:")
    say(f"fleetgate verify audit --restored {found[0]}")


def _told(entry: AuditEntry | Unreadable) -> str:
    """A line of its own for each: details do not fit the columns of a table."""
    if isinstance(entry, Unreadable):
        return str(entry)
    what = f"{entry.tenant} {entry.object}".lstrip()
    head = f"{show('at_ms', entry.at_ms)}  {entry.action} {what} by {entry.actor}"
    facts = "; ".join(f"{label(name)} {_shown(name, value)}" for name, value in entry.detail.items())
    return cell(f"{head}: {facts}" if facts else head)


def _shown(name: str, value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else show(name, value)
