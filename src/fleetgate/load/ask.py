"""A person's way to ClickHouse: over HTTP, or (offline) by opening the embedded one while load is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fleetgate.catalogue import catalogue
from fleetgate.config import Config
from fleetgate.errors import CheckFailed, ClickHouseAway, ConfigError
from fleetgate.load.clickhouse import Answered, ClickHouse, EmbeddedClickHouse, Parameters, Refused
from fleetgate.load.migrations import migrate
from fleetgate.load.service import embedded_directory, reader


def bring_up_to_date(config: Config, offline: bool) -> list[str]:
    """The migrations that were applied. Raises ConfigError, CheckFailed, ClickHouseAway."""
    if embedded_directory(config) is not None and not offline:
        raise ConfigError(
            "load brings an embedded ClickHouse up to date when it starts; add --offline while it is stopped"
        )
    with opened(config, offline) as clickhouse:
        return migrate(clickhouse, catalogue(), config.load.raw_days)


def ask(config: Config, sql: str, output_format: str, offline: bool, parameters: Parameters | None = None) -> bytes:
    """The answer to a statement that reads. Raises CheckFailed with ClickHouse's own words, ClickHouseAway."""
    with opened(config, offline) as clickhouse:
        return clickhouse.raw(sql.strip().rstrip(";"), output_format, parameters)


@contextmanager
def opened(config: Config, offline: bool) -> Iterator[ClickHouse]:
    """A client with a reader's rights. Raises CheckFailed with ClickHouse's own words, ClickHouseAway, ConfigError."""
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
    except ClickHouseAway:
        where = config.clickhouse.url if directory is None else f"http://{config.clickhouse.listen}"
        raise ClickHouseAway(
            f"ClickHouse does not answer at {where}: is `fleetgate load` (or `fleetgate up`) running? "
            "--offline opens an embedded one that is stopped"
        ) from None
    finally:
        clickhouse.close()
