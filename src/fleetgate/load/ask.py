"""A person's way to ClickHouse: over HTTP, or (offline) by opening the embedded one while load is stopped.

Offline a person may ask what the owner of the embedded one would answer a reader over HTTP, and nothing else: asking
changes nothing and makes nothing. `offline` is None where a command has no such option, which it is not told of then.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fleetgate.catalogue import catalogue
from fleetgate.config import Config
from fleetgate.errors import CheckFailed, ClickHouseAway, ConfigError, NotFound
from fleetgate.load.clickhouse import Answered, Parameters, Refused, ServerClickHouse, failure
from fleetgate.load.endpoint import embedded_directory, reader
from fleetgate.load.migrations import migrate

if TYPE_CHECKING:  # chdb takes 0.3 s and 200 MB: who asks over HTTP does without
    from fleetgate.load.embedded import EmbeddedClickHouse


def bring_up_to_date(config: Config, offline: bool) -> list[str]:
    """The migrations that were applied. Raises ConfigError, CheckFailed, ClickHouseAway."""
    if embedded_directory(config) is not None and not offline:
        raise ConfigError(
            "load brings an embedded ClickHouse up to date when it starts; add --offline while it is stopped"
        )
    with _opened(config, offline) as clickhouse:
        return migrate(clickhouse, catalogue(), config.load.raw_days)


def ask(
    config: Config, sql: str, output_format: str, offline: bool | None, parameters: Parameters | None = None
) -> bytes:
    """The answer to a statement that reads. Raises CheckFailed with ClickHouse's own words, ClickHouseAway, NotFound
    where there are no tables to ask."""
    statement = sql.strip().rstrip(";")
    with opened(config, offline) as clickhouse:
        if isinstance(clickhouse, ServerClickHouse):
            return clickhouse.raw(statement, output_format, parameters)
        return _answer_to_a_reader(clickhouse, statement, output_format, parameters or {})


def _answer_to_a_reader(engine: EmbeddedClickHouse, sql: str, output_format: str, parameters: Parameters) -> bytes:
    """Ours is the writer's handle, which would run whatever it is given: the statement takes the way of HTTP."""
    from fleetgate.load.answer import Failed, answer

    told = {"database": engine.database, **{f"param_{name}": str(value) for name, value in parameters.items()}}
    try:
        return answer(engine, f"{sql}\nFORMAT {output_format}".encode(), told, writer=False).body
    except Failed as error:
        raise failure(str(error)) from None


@contextmanager
def opened(config: Config, offline: bool | None) -> Iterator[EmbeddedClickHouse | ServerClickHouse]:
    """To read from. Raises NotFound, before anything is made, where an embedded one has no tables yet; else as below.

    Offline it is a handle that can write: what a person typed goes through `ask`.
    """
    directory = embedded_directory(config)
    if offline and directory is not None and not _has_tables(directory, config.clickhouse.database):
        raise NotFound(
            f"there are no tables in {directory} yet: `fleetgate up` (or load) makes and fills them, "
            "`fleetgate db migrate --offline` makes them"
        )
    with _opened(config, offline) as clickhouse:
        yield clickhouse


def _has_tables(directory: Path, database: str) -> bool:
    """Told from ClickHouse's files: opening it would make them. `migrations` is the first table made."""
    return (directory / "metadata" / database / "migrations.sql").exists()


@contextmanager
def _opened(config: Config, offline: bool | None) -> Iterator[EmbeddedClickHouse | ServerClickHouse]:
    """Raises CheckFailed with ClickHouse's own words, ClickHouseAway, ConfigError."""
    directory = embedded_directory(config)
    clickhouse: EmbeddedClickHouse | ServerClickHouse
    if offline and directory is not None:
        from fleetgate.load.embedded import EmbeddedClickHouse

        clickhouse = EmbeddedClickHouse(directory, config.clickhouse.database)
    else:
        clickhouse = reader(config)
    try:
        yield clickhouse
    except (Refused, Answered) as error:
        raise CheckFailed(str(error)) from None
    except ClickHouseAway:
        where = config.clickhouse.url if directory is None else f"http://{config.clickhouse.listen}"
        stopped = directory is not None and offline is not None
        advice = " --offline opens an embedded one that is stopped" if stopped else ""
        raise ClickHouseAway(
            f"ClickHouse does not answer at {where}: is `fleetgate load` (or `fleetgate up`) running?{advice}"
        ) from None
    finally:
        clickhouse.close()
