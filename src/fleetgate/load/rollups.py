"""The rollups of one segment, completed from a recount where an insert ended between `events` and its views.

ClickHouse puts the rows of an insert into `events` first, then what the views make of them into the rollups. So a
rollup may lack what `events` has, and never has more. Decides what is lacking by counting again, in `events`, every key
that the segment touches: which tokens ClickHouse remembers does not matter, and a second time finds nothing to do. That
is sound while no insert is running (`wait_for_quiet`), as one may be between `events` and the views.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fleetgate.errors import ClickHouseAway
from fleetgate.load.clickhouse import ClickHouse


class _Rollup(NamedTuple):
    """As schemas/clickhouse/004_rollups.sql feeds it: `source` and `keys` as there. `touched` are the keys by which the
    rows that matter are found, `sums` and `floats` what is added up, the first of `sums` how many rows were counted.
    `merged` may be added twice: a least value, a greatest, a latest, a set."""

    table: str
    source: str
    keys: Mapping[str, str]
    touched: tuple[str, ...]
    sums: Mapping[str, str]
    floats: Mapping[str, str]
    merged: Mapping[str, str]


_ROLLUPS = (
    _Rollup(
        "signal_minute",
        "(SELECT *, arrayJoin(arrayZip(signal_ids, signal_values)) AS reading FROM events WHERE {rows}) AS e "
        "WHERE NOT has(e.implausible, reading.1)",
        {
            "tenant": "e.tenant",
            "vehicle_id": "e.vehicle_id",
            "signal_id": "reading.1",
            "minute": "toStartOfMinute(toDateTime(e.event_time, 'UTC'))",
        },
        ("tenant", "vehicle_id", "minute"),
        {"readings": "count()"},
        {"total": "sum(reading.2)"},
        {
            "least": "min(reading.2)",
            "greatest": "max(reading.2)",
            "last": "argMaxState(reading.2, e.event_time)",
            "last_at": "max(e.event_time)",
        },
    ),
    _Rollup(
        "fleet_minute",
        "(SELECT * FROM events WHERE {rows}) AS e",
        {
            "tenant": "e.tenant",
            "software": "e.software",
            "config": "e.config",
            "minute": "toStartOfMinute(toDateTime(e.received_at, 'UTC'))",
        },
        ("tenant", "software", "config", "minute"),
        {
            "events": "count()",
            "faults": "countIf(e.kind = 'fault')",
            "readings": "sum(length(e.signal_ids))",
            "implausible": "sum(length(e.implausible))",
            "unknown": "sum(length(e.unknown_values) + e.unknown_dropped)",
            "late": "countIf(bitAnd(e.flags, 2) != 0)",
            "out_of_order": "countIf(bitAnd(e.flags, 1) != 0)",
        },
        {},
        {"vehicles": "uniqState(e.vehicle_id)"},
    ),
)


def wait_for_quiet(clickhouse: ClickHouse) -> None:
    """Raises ClickHouseAway while any insert is running in the database."""
    [[running]] = clickhouse.rows(
        "SELECT count() FROM system.processes WHERE query_kind = 'Insert' AND current_database = currentDatabase()"
    )
    if int(running):
        raise ClickHouseAway("an insert is still running, perhaps an earlier one of this segment")


def complete_rollups(clickhouse: ClickHouse, spool: str, segment: int, day: int) -> None:
    """Adds to the rollups what they lack of a segment's rows in `events`, received on `day` (days since 1970).

    Raises ClickHouseAway, Refused.
    """
    for rollup in _ROLLUPS:
        clickhouse.command(_completion(rollup, spool, segment, day))


def _completion(rollup: _Rollup, spool: str, segment: int, day: int) -> str:
    of_day = f"toYYYYMMDD(received_at) = toYYYYMMDD(toDate({day}))"
    touched = ", ".join(rollup.touched)
    # By the same expressions, and of the bare columns: so ClickHouse finds the rows by its primary key.
    found = ", ".join(rollup.keys[name].replace("e.", "") for name in rollup.touched)
    segments_own = f"spool = '{spool}' AND segment = {segment} AND {of_day}"
    keys_touched = f"(SELECT DISTINCT {found} FROM events WHERE {segments_own})"  # noqa: S608  names of ours, hex, numbers
    source = rollup.source.replace("{rows}", f"{of_day} AND ({found}) IN {keys_touched}")
    added = {**rollup.sums, **rollup.floats}
    counted = ", ".join(f"{value} AS {name}_" for name, value in {**rollup.keys, **added, **rollup.merged}.items())
    key = ", ".join(rollup.keys)
    first = next(iter(rollup.sums))
    columns = [f"c.{name}_" for name in rollup.keys]
    columns += [f"c.{name}_ - least(c.{name}_, k.{name}_)" for name in rollup.sums]
    # Of values so large that their sum overflows, no part can be told.
    columns += [f"if(isFinite(c.{name}_ - k.{name}_), c.{name}_ - k.{name}_, 0)" for name in rollup.floats]
    columns += [f"c.{name}_" for name in rollup.merged]
    return (
        f"INSERT INTO {rollup.table} ({key}, {', '.join([*added, *rollup.merged])}, received_day) "  # noqa: S608
        "SETTINGS insert_deduplicate = 0 "  # equal rows may be lacking twice
        f"SELECT {', '.join(columns)}, toDate({day}) "
        f"FROM (SELECT {counted} FROM {source} GROUP BY {', '.join(f'{name}_' for name in rollup.keys)}) AS c "
        f"LEFT JOIN (SELECT {', '.join(f'{name} AS {name}_' for name in rollup.keys)}, "
        f"{', '.join(f'sum({name}) AS {name}_' for name in added)} FROM {rollup.table} "
        f"WHERE received_day = toDate({day}) AND ({touched}) IN {keys_touched} GROUP BY {key}) AS k "
        f"USING ({', '.join(f'{name}_' for name in rollup.keys)}) WHERE c.{first}_ > k.{first}_"
    )
