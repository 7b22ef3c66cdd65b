"""Which ClickHouse a configuration names, and the client that reaches it over HTTP.

Apart from the process of load, so that whoever only asks does not import everything that loads.
"""

from __future__ import annotations

from pathlib import Path

from fleetgate.config import Config
from fleetgate.control.secretfile import read_secret
from fleetgate.load.clickhouse import ServerClickHouse

EMBEDDED = "chdb://"


def embedded_directory(config: Config) -> Path | None:
    """Where the embedded ClickHouse lives; None when `clickhouse.url` names a server."""
    url = config.clickhouse.url
    return config.path(url.removeprefix(EMBEDDED)) if url.startswith(EMBEDDED) else None


def access_token(config: Config) -> str:
    """The token or password for ClickHouse over HTTP. Raises ConfigError when there is no usable file."""
    remedy = (
        "clickhouse.token_file names it. `fleetgate load` makes it for an embedded ClickHouse at its first start; for "
        "a server write its password there, mode 0600"
    )
    return read_secret(config.path(config.clickhouse.token_file), remedy).decode("ascii", "replace").strip()


def reader(config: Config) -> ServerClickHouse:
    """A client over HTTP, with the rights that the token gives: of a server, or of the embedded one's owner."""
    settings = config.clickhouse
    url = settings.url if embedded_directory(config) is None else f"http://{settings.listen}"
    return ServerClickHouse(url, settings.database, settings.user, access_token(config))
