"""`fleetgate spool`: look into the spool, mend it, and hand to load again what it set aside.

Decides options and output. What a spool holds is read by `spool.survey` and `spool.reader`, what can be mended is
decided by `spool.repair`; load, another process, takes up what `retry` asks for.
"""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from fleetgate.cli.console_output import AsJson, cell, print_json, print_table, say, show
from fleetgate.cli.session import OTHERS_NOTHING, Session, session_of
from fleetgate.cli.spool_records import Kind, print_segment
from fleetgate.cli.verify import spool as verify_spool
from fleetgate.control.spools import known_spools
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError, Conflict, ControlAway, NotFound
from fleetgate.spool.custody import held
from fleetgate.spool.files import find_segment, parked_for, reaching, require_spool, segment_files
from fleetgate.spool.home import Known
from fleetgate.spool.repair import Repair
from fleetgate.spool.requests import ask
from fleetgate.spool.survey import Summary, survey

app = typer.Typer(help="The spool on disk.", no_args_is_help=True, rich_markup_mode=None)

Number = Annotated[int, typer.Argument(metavar="SEGMENT", help="Number of a segment; leading zeros do not matter.")]
MaybeNumber = Annotated[int | None, typer.Argument(metavar="[SEGMENT]", help="Only this segment; else all.")]

_COLUMNS = {
    "segment": "segment",
    "state": "state",
    "opened_at_ms": "opened at",
    "messages": "msgs",
    "rejections": "rej",
    "transitions": "trans",
    "peers": "peers",
    "bytes": "bytes",
    "loaded": "loaded",
    "lag_ms": "lag",
}
"""The rest of a row does not fit a terminal: notes stand below, `--json` has all."""


app.command("verify", hidden=True)(verify_spool)  # where people look for it; it is `fleetgate verify spool`


def kind_of(text: str) -> Kind:
    try:
        return Kind(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no kind of record: say {', '.join(Kind)}") from None


@app.command("ls")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the segments, how far load is behind, and why segments were set aside."""
    session = session_of(context)
    directory = session.config.path(session.config.spool.directory)
    require_spool(directory)
    with reaching(directory):
        found = survey(directory, session.clock.now_ms())
    if as_json:
        print_json(found)
        return
    rows = [[_shown(name, getattr(row, name)) for name in _COLUMNS] for row in found.segments]
    print_table(list(_COLUMNS.values()), rows, empty="no segments")
    for row in found.segments:
        if row.note:
            say(cell(f"segment {row.segment} ({row.state}): {row.note}"))
    say(_in_words(found.summary))


def _shown(name: str, value: Any) -> str:
    return f"{value / 1000:.0f} s" if name == "lag_ms" and value is not None else show(name, value)


def _in_words(summary: Summary) -> str:
    behind = "nothing waits for load"
    if summary.unloaded:
        age = f"{(summary.oldest_unloaded_age_ms or 0) / 1000:.0f} s"
        behind = f"not loaded: {summary.unloaded} of {summary.unloaded_bytes} bytes, the oldest record waits for {age}"
    lines = [f"segments: {summary.segments} of {summary.bytes} bytes; loaded through {summary.cursor}; {behind}"]
    if summary.parked:
        lines.append(f"parked: {summary.parked}; mend the cause, then `fleetgate spool retry`")
    if summary.trouble:
        lines.append(f"how far load is cannot be told: {summary.trouble}")
    return "\n".join(lines)


@app.command()
def cat(
    context: typer.Context,
    segment: Number,
    kind: Annotated[
        list[Kind] | None,
        typer.Option(parser=kind_of, metavar="|".join(Kind), help="Only records of this kind; may be repeated."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Only records of this device.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many records of each kind.")] = None,
    bodies: Annotated[bool, typer.Option("--bodies", help="Open the messages' bodies too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a segment's records. Signatures are not checked: there is no key here."""
    session = session_of(context)
    directory = session.config.path(session.config.spool.directory)
    with reaching(directory):
        file = find_segment(directory, segment)
        print_segment(file, frozenset(kind or Kind), device, limit, bodies=bodies, as_json=as_json)


@app.command()
def repair(
    context: typer.Context,
    segment: MaybeNumber = None,
    restored: Annotated[
        bool, typer.Option("--restored", help="The spool's files come from a backup or an older copy of its disk.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
) -> None:
    """Keep every good record, set aside what is damaged, and make a spool open again. The edge must be stopped."""
    session = session_of(context)
    os.umask(OTHERS_NOTHING)
    directory = session.config.path(session.config.spool.directory)
    with reaching(directory), held(directory) as custody:
        known = _known_spools(session)
        steps = Repair(custody, session.clock, os.urandom, only=segment, restored=restored, known=known).steps
        if not steps:
            say(
                "nothing to repair; what `fleetgate verify spool` still names is loaded already, "
                "or can only come from a backup"
            )
            return
        for number, step in enumerate(steps, 1):
            say(f"{number}. {step.finding}\n   {step.remedy}")
        if not yes and not _agreed():
            say("nothing was changed")
            return
        for number, step in enumerate(steps, 1):
            step.act()
            say(f"{number}. done")
    say("look at it with `fleetgate verify spool`, then start the edge; damaged files are kept in parked/")


def _known_spools(session: Session) -> list[Known] | None:
    """What control says; a spool is repaired without it too."""
    try:
        with Store.open(session.config, session.clock) as store:
            return known_spools(store, Known)
    except (ConfigError, ControlAway):
        return None


def _agreed() -> bool:
    try:
        return typer.confirm("do this?")
    except typer.Abort:  # nobody is there to answer, or Ctrl-C
        say("")
        return False


@app.command()
def retry(context: typer.Context, segment: MaybeNumber = None) -> None:
    """Have load try parked segments again; what is in ClickHouse already is not doubled."""
    session = session_of(context)
    directory = session.config.path(session.config.spool.directory)
    require_spool(directory)
    files = [file for file in segment_files(directory) if file.state == "parked" and segment in (None, file.number)]
    if segment is not None and not files:
        raise NotFound(f"segment {segment} is not parked: `fleetgate spool ls` lists what is")
    asked = 0
    for file in files:
        why = parked_for(file.path).why
        if why == "changed" and segment is None:
            say(f"{file.number} is changed and stays: compare it with what was loaded, or name it to try it again")
            continue
        if why in ("damaged", "unreadable") and not file.path.with_suffix(".damaged").exists():
            if segment is not None:
                raise Conflict(f"segment {segment} is {why}: `fleetgate spool repair` it first")
            say(f"{file.number} is {why} and stays: `fleetgate spool repair` it first")
            continue
        with reaching(directory):
            ask(file.path)
        asked += 1
        say(f"{file.number} is handed to load again (it was parked as {why})")
    if asked:
        say("load tries them within a second while it runs, and takes away what ClickHouse has: `fleetgate spool ls`")
    elif files:
        raise Conflict("nothing is handed to load: what is parked stays until that is done")
    else:
        say("nothing is parked")
