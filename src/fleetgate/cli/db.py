"""`fleetgate db`: the tables in ClickHouse, and questions to them.

Everything goes over HTTP, so that it works while load owns an embedded ClickHouse; `--offline` opens its directory
instead, while load is stopped.
"""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer

from fleetgate.cli.console_output import print_table, say
from fleetgate.cli.session import session_of

app = typer.Typer(help="Tables in ClickHouse, and questions to them.", no_args_is_help=True)

Offline = Annotated[bool, typer.Option("--offline", help="Open the embedded ClickHouse itself; load must be stopped.")]


@app.command()
def migrate(context: typer.Context, offline: Offline = False) -> None:
    """Bring the tables up to date."""
    from fleetgate.load.ask import bring_up_to_date  # ClickHouse's libraries: other commands do without

    applied = bring_up_to_date(session_of(context).config, offline)
    say("\n".join(f"applied {name}" for name in applied) or "up to date")


@app.command()
def query(
    context: typer.Context,
    sql: Annotated[str, typer.Argument(help="A statement that reads, such as: SELECT count() FROM events")],
    output_format: Annotated[
        str | None, typer.Option("--format", help="A ClickHouse output format (CSVWithNames, JSON ...); else a table.")
    ] = None,
    offline: Offline = False,
) -> None:
    """Ask ClickHouse; for tables and columns see `SHOW TABLES` and `DESCRIBE TABLE events`."""
    from fleetgate.load.ask import ask

    answer = ask(session_of(context).config, sql, output_format or "JSONCompactEachRowWithNames", offline)
    if output_format is not None:
        sys.stdout.buffer.write(answer)
        return
    # Bytes that are no text (raw_messages.envelope) are shown as far as they are; --format gives them whole.
    lines = answer.decode(errors="replace").splitlines()
    # A statement that reads has a line of names at least; a user of a server may be let do more, which has no answer.
    names, *rows = [_decode_line(line) for line in lines if line] or [[]]
    print_table(names, [[exact(value) for value in row] for row in rows], empty="no rows")


def exact(value: object) -> object:
    """A number as it is stored: a table of readings must not round them."""
    return repr(value) if isinstance(value, float) else value


_decode_line = msgspec.json.Decoder(list).decode
