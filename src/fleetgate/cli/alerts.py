"""`fleetgate alerts`: what the watch and the edges found, open or (with --all) closed too; and that one is over.

Decides options and output. What is an alert is decided by `load.watch` and the edge, which one a person may close by
`control.edgealerts`; what to do with one is said by docs/how-to/investigate-an-alert.md.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fleetgate.cli.console_output import AsJson, cell, print_json, print_table, say, show
from fleetgate.cli.db import Offline
from fleetgate.cli.session import actor, session_of
from fleetgate.control.edgealerts import close_alert
from fleetgate.control.store import Store

app = typer.Typer(rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def alerts(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Those that are closed too, of the last 30 days.")] = False,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Say what suddenly changed in the fleet: whose vehicles, which signal, what it was and what it is."""
    if context.invoked_subcommand is not None:
        return
    from fleetgate.load.alertlist import list_alerts  # ClickHouse's libraries: other commands do without

    session = session_of(context)
    found = list_alerts(session.config, session.clock.now_ms(), everything, offline)
    if as_json:
        print_json(found)
        return
    headings = ["alert", "kind", "tenant", "whose", "signal", "before", "after", "vehicles", "opened"]
    rows = [
        [
            one.alert_id,
            *map(cell, (one.kind, one.tenant or "all", one.cohort or "all", one.signal or "-")),
            *("-" if value is None else f"{value:.4g}" for value in (one.before, one.after)),
            str(one.vehicles),
            show("at_ms", one.opened_at_ms),
            *([show("at_ms", one.closed_at_ms)] if everything else []),
        ]
        for one in found
    ]
    print_table([*headings, *(["closed"] if everything else [])], rows, empty="no alerts")


@app.command()
def close(
    context: typer.Context,
    alert: Annotated[str, typer.Argument(help="Its id, as `fleetgate alerts` shows it.")],
    reason: Annotated[str, typer.Option(help="Why; stands in the audit.")],
    edge_gone: Annotated[
        bool, typer.Option("--edge-gone", help="Its edge is gone for good: closes a breaker's hold, too.")
    ] = False,
) -> None:
    """Close an alert of an edge that cannot do so itself: the edge is gone, or nobody is left under the CA."""
    session = session_of(context)
    with Store.open(session.config, session.clock, write=True) as store:
        close_alert(store, alert, actor(), reason, edge_gone=edge_gone)
    say(f"{alert}: closed; whoever is told alerts hears of it within a minute")
