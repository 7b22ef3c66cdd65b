"""The tables: schemas/clickhouse/*.sql in the order of their names, each once, the same for chdb and a server.

Decides what was applied (table `migrations`) and that an applied file never changes. Fills the mirror of the signal
catalogue.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources

import pyarrow as pa

from fleetgate.catalogue import Catalogue
from fleetgate.errors import ClickHouseAway, ConfigError
from fleetgate.load.clickhouse import ClickHouse

_MIGRATIONS = """
CREATE TABLE IF NOT EXISTS migrations (name String, sha256 String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = MergeTree ORDER BY name SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
"""
_STORED_SIGNALS = "SELECT number, path, unit, minimum, maximum, max_rate_per_second FROM signals FINAL"
_TTL = re.compile(r"TTL toDateTime\(received_at\) \+ toIntervalDay\((\d+)\)")


def migrations() -> list[tuple[str, str]]:
    """(name, text) of each file, in order."""
    directory = resources.files("fleetgate").joinpath("schemas/clickhouse")
    files = [file for file in directory.iterdir() if file.name.endswith(".sql")]
    return sorted((file.name, file.read_text("utf-8")) for file in files)


def migrate(clickhouse: ClickHouse, catalogue: Catalogue, raw_days: int) -> list[str]:
    """Brings the database up to date; the names of what was applied now. May be repeated after a crash anywhere.

    Raises ConfigError when a file that was applied has changed since, ClickHouseAway, Refused.
    """
    clickhouse.command(_MIGRATIONS)
    missing = _missing(clickhouse)
    for name, text in missing:
        for statement in _statements(text.replace("${raw_days}", str(raw_days))):
            clickhouse.command(statement)
        row = {"name": [name], "sha256": [_sha256(text)]}
        clickhouse.insert("migrations", pa.table(row), f"migration-{name}")
    _keep_raw_days(clickhouse, raw_days)
    _mirror_catalogue(clickhouse, catalogue)
    return [name for name, _ in missing]


def require(clickhouse: ClickHouse) -> None:
    """For a process that may not create tables. Raises ClickHouseAway while any is missing, ConfigError."""
    if _missing(clickhouse):
        raise ClickHouseAway("the tables are not those of this version: run `fleetgate db migrate`")


def _missing(clickhouse: ClickHouse) -> list[tuple[str, str]]:
    applied: dict[str, str] = dict(clickhouse.rows("SELECT name, sha256 FROM migrations"))
    missing: list[tuple[str, str]] = []
    for name, text in migrations():
        if name not in applied:
            missing.append((name, text))
        elif applied[name] != _sha256(text):
            raise ConfigError(f"schemas/clickhouse/{name} was applied and has changed since: write a new file instead")
    return missing


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _statements(text: str) -> list[str]:
    """The statements of a file: each ends with a semicolon at the end of a line, which no comment has."""
    return [statement for statement in re.split(r";\s*\n", text) if statement.strip()]


def _keep_raw_days(clickhouse: ClickHouse, raw_days: int) -> None:
    """Follows a change of `load.raw_days`. Parts leave whole, so nothing has to be rewritten for it."""
    [[engine]] = clickhouse.rows(
        "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'raw_messages'"
    )
    stands = _TTL.search(engine)
    if stands is None or int(stands.group(1)) != raw_days:
        clickhouse.command(
            f"ALTER TABLE raw_messages MODIFY TTL toDateTime(received_at) + toIntervalDay({raw_days}) "
            "SETTINGS materialize_ttl_after_modify = 0"
        )


def _mirror_catalogue(clickhouse: ClickHouse, catalogue: Catalogue) -> None:
    """Adds what the table `signals` lacks or has otherwise; the catalogue only grows."""
    stored = {tuple(row) for row in clickhouse.rows(_STORED_SIGNALS)}
    missing = [
        row
        for signal in catalogue.signals
        if (row := (signal.number, signal.path, signal.unit, signal.min, signal.max, signal.rate)) not in stored
    ]
    if not missing:
        return
    names = ["number", "path", "unit", "minimum", "maximum", "max_rate_per_second"]
    types = [pa.uint16(), pa.string(), pa.string(), pa.float64(), pa.float64(), pa.float64()]
    arrays = [pa.array(values, type=kind) for values, kind in zip(zip(*missing, strict=True), types, strict=True)]
    token = hashlib.sha256(repr(missing).encode()).hexdigest()
    clickhouse.insert("signals", pa.table(dict(zip(names, arrays, strict=True))), f"signals-{token}")
