"""`fleetgate gaps`: what did a vehicle not deliver, when, and did it come later?

Decides options and output. What a gap is, the view `gaps` decides; what the numbers mean, schemas/envelope.md.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from fleetgate.cli.console_output import AsJson, cell, print_json, print_table, say, show
from fleetgate.cli.db import Offline
from fleetgate.cli.session import session_of
from fleetgate.errors import ConfigError

_UNIT_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_AGO = re.compile(r"([0-9]{1,6})([mhd])")
_COLUMNS = (
    *("tenant", "vehicle_id", "device_id", "epoch", "first_seq", "last_seq", "numbers"),
    *("after_at_ms", "noticed_at_ms", "fate"),
)


def gaps(
    context: typer.Context,
    vehicle: Annotated[str | None, typer.Option(help="Vehicle id, whatever devices sat in it.")] = None,
    device: Annotated[str | None, typer.Option(metavar="TENANT/DEVICE", help="One device.")] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only what was noticed or came since: 90m, 24h, 7d, or a time such as 2026-11-22T10:00Z."),
    ] = None,
    as_json: AsJson = False,
    offline: Offline = False,
) -> None:
    """Say which messages of a vehicle or device were not delivered, when, and whether they came later."""
    from fleetgate.load.gaps import Gap, Whose, find_gaps  # ClickHouse's libraries: other commands do without

    def row(gap: Gap) -> list[str]:
        fates = {
            "missing": "missing",
            "refused": f"refused: {', '.join(gap.reasons)}",
            "late": f"came later, at {show('at_ms', gap.came_at_ms)}",
        }
        if gap.state == "late" and gap.reasons:
            fates["late"] += f"; refused before: {', '.join(gap.reasons)}"
        return [fates[gap.state] if name == "fate" else show(name, getattr(gap, name)) for name in _COLUMNS]

    session = session_of(context)
    since_ms = _since(since, session.clock.now_ms()) if since is not None else 0
    tenant, slash, name = (device or "").partition("/")
    if bool(vehicle) == bool(device) or (device and not (tenant and slash and name)):
        raise ConfigError("say either --vehicle VEHICLE or --device TENANT/DEVICE")
    whose = Whose(vehicle=vehicle) if vehicle else Whose(tenant=tenant, device=name)
    found = find_gaps(session.config, whose, since_ms, offline)
    if as_json:
        print_json(found)
        return
    headings = ["tenant", "vehicle", "device", "epoch", "first", "last", "messages", "after", "noticed", "fate"]
    print_table(headings, map(row, found.gaps), empty="no gaps")
    sums = found.summary
    if sums.more:
        say(f"only the first {len(found.gaps)} are shown: narrow them with --since, or query the view `gaps`")
    told = f"missing: {sums.missing}, refused: {sums.refused}, came later: {sums.late} messages"
    say(cell(f"{told}; last heard of {whose} at {show('at_ms', sums.heard_at_ms)}, as far as it is loaded"))


def _since(text: str, now_ms: int) -> int:
    """Unix ms of a span before now, or of a time (UTC unless it says otherwise). Raises ConfigError."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_ms - int(ago.group(1)) * _UNIT_MS[ago.group(2)]
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"--since {text}: neither a span (90m, 24h, 7d) nor a time (2026-11-22T10:00Z)") from None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
