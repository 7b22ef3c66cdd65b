"""`fleetgate db`: the tables in ClickHouse, and questions to them.

Everything goes over HTTP, so that it works while load owns an embedded ClickHouse; `--offline` opens its directory
instead, while load is stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from fleetgate.catalogue import catalogue
from fleetgate.cli.console_output import print_table, say
from fleetgate.cli.session import session_of
from fleetgate.config import Config
from fleetgate.errors import CheckFailed, ConfigError
from fleetgate.load.clickhouse import Answered, ClickHouse, EmbeddedClickHouse, Refused, decode_rows
from fleetgate.load.migrations import migrate as apply_migrations
from fleetgate.load.service import embedded_directory, reader

app = typer.Typer(help="Tables in ClickHouse, and questions to them.", no_args_is_help=True)

Offline = Annotated[bool, typer.Option("--offline", help="Open the embedded ClickHouse itself; load must be stopped.")]


@app.command()
def migrate(context: typer.Context, offline: Offline = False) -> None:
    """Bring the tables up to date."""
    config = session_of(context).config
    if embedded_directory(config) is not None and not offline:
        raise ConfigError(
            "load brings an embedded ClickHouse up to date when it starts; add --offline while it is stopped"
        )
    with _open(config, offline) as clickhouse:
        applied = apply_migrations(clickhouse, catalogue(), config.load.raw_days)
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
    with _open(session_of(context).config, offline) as clickhouse:
        statement = sql.strip().rstrip(";")
        if output_format is not None:
            sys.stdout.buffer.write(clickhouse.raw(statement, output_format))
            return
        names, *rows = decode_rows(clickhouse.raw(statement, "JSONCompactEachRowWithNames"))
        print_table(names, rows, empty="no rows")


@contextmanager
def _open(config: Config, offline: bool) -> Iterator[ClickHouse]:
    """Raises CheckFailed with ClickHouse's own words where it refuses the statement."""
    directory = embedded_directory(config)
    clickhouse: ClickHouse
    if offline and directory is not None:
        clickhouse = EmbeddedClickHouse(directory, config.clickhouse.database)
    else:
        clickhouse = reader(config)
    try:
        yield clickhouse
    except (Refused, Answered) as error:
        raise CheckFailed(str(error)) from None
    finally:
        clickhouse.close()
