"""The gap ledger against the rows that it follows from: `received_ranges` has no hash, and is computed again instead.

Decides what must agree, segment by segment: the runs of accepted and held numbers with those of the messages' rows
(device, vehicle, epoch, first and last number, first and last receipt, first record), and the refused ones with the
rows of `rejections`. Runs that a repair left beside one another are joined first. So it is exact where no repair was;
of joined runs only the ends and outer times are. What came before there was a ledger follows from nothing.
"""

from __future__ import annotations

from fleetgate.load.clickhouse import ClickHouse
from fleetgate.load.release import IS_COPY

_OF = "spool = {spool:String} AND segment >= {first:UInt64} AND segment <= {last:UInt64}"
_WHO = "segment, tenant, vehicle_id, device_id, epoch"
_TEXTS = (
    "segment, toString(tenant) AS tenant, toString(vehicle_id) AS vehicle_id, toString(device_id) AS device_id, epoch"
)
_RUN = "min(low) AS low, max(high) AS high, min(since) AS since, max(until) AS until, min(place) AS place"

_MESSAGES = " UNION ALL ".join(
    f"SELECT {_TEXTS}, {outcome} AS outcome, seq, received_at, record_offset FROM {table} WHERE {_OF} {kept}"  # noqa: S608  tables of ours
    for table, outcome, kept in (
        ("events", "'accepted'", f"AND NOT ({IS_COPY})"),
        ("held_events", "'held'", ""),
        ("raw_messages", "toString(outcome)", ""),
    )
)
_MEANT = f"""
SELECT {_WHO}, outcome, '' AS reason, {_RUN} FROM
(
    SELECT *, toInt64(low) - row_number() OVER (PARTITION BY {_WHO}, outcome ORDER BY low) AS heap FROM
    (
        SELECT {_WHO}, outcome, seq AS low, seq AS high, min(received_at) AS since, max(received_at) AS until,
               min(record_offset) AS place
        FROM ({_MESSAGES}) GROUP BY {_WHO}, outcome, seq
    )
)
GROUP BY {_WHO}, outcome, heap
"""  # noqa: S608  tables of ours

_STORED = f"""
SELECT {_WHO}, outcome, reason, {_RUN} FROM
(
    SELECT *, sum(begins) OVER (PARTITION BY {_WHO}, outcome, reason ORDER BY low, high
                                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS heap FROM
    (
        SELECT *, low > 1 + max(high) OVER (PARTITION BY {_WHO}, outcome, reason ORDER BY low, high
                                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS begins FROM
        (
            SELECT {_TEXTS}, toString(outcome) AS outcome, toString(reason) AS reason, first_seq AS low,
                   last_seq AS high, first_received_at AS since, received_at AS until, record_offset AS place
            FROM received_ranges WHERE {_OF} AND outcome != 'refused'
        )
    )
)
GROUP BY {_WHO}, outcome, reason, heap
"""  # noqa: S608  tables of ours

_REFUSED_MEANT = f"""
SELECT DISTINCT segment, toString(tenant) AS tenant, toString(vehicle_id) AS vehicle_id,
       toString(device_id) AS device_id, ranges.epoch AS epoch, 'refused' AS outcome, toString(reason) AS reason,
       ranges.first_seq AS low, ranges.last_seq AS high, first_at AS since, received_at AS until, record_offset AS place
FROM rejections ARRAY JOIN ranges WHERE {_OF}
"""  # noqa: S608  tables of ours

_REFUSED_STORED = f"""
SELECT DISTINCT {_TEXTS}, toString(outcome) AS outcome, toString(reason) AS reason, first_seq AS low, last_seq AS high,
       first_received_at AS since, received_at AS until, record_offset AS place
FROM received_ranges WHERE {_OF} AND outcome = 'refused'
"""  # noqa: S608  tables of ours

_COLUMNS = f"{_WHO}, outcome, reason, low, high, since, until, place"
_SIDES = " UNION ALL ".join(
    f"SELECT {_COLUMNS} FROM ({side})"  # noqa: S608  statements of ours
    for side in (_MEANT, _STORED, _REFUSED_MEANT, _REFUSED_STORED)
)
_DIFFERENT = f"""
SELECT segment, count() FROM
(
    SELECT {_COLUMNS} FROM
    (
        {_SIDES}
    )
    GROUP BY {_COLUMNS} HAVING count() = 1
)
GROUP BY segment
"""  # noqa: S608  tables of ours


def different_ranges(clickhouse: ClickHouse, spool: str, first: int, last: int) -> dict[int, int]:
    """Segments of these numbers whose runs differ, and in how many. Raises ClickHouseAway."""
    found = clickhouse.rows(_DIFFERENT, {"spool": spool, "first": first, "last": last})
    return {int(segment): int(count) for segment, count in found}


def from_before(clickhouse: ClickHouse) -> tuple[int, bool]:
    """How many ranges the ledger has of what came before it, and whether there are segments from before it at all."""
    [[ranges]] = clickhouse.rows("SELECT count() FROM received_ranges WHERE outcome = 'before_ledger'")
    [[segments]] = clickhouse.rows("SELECT count() FROM segments WHERE place = 0")
    return int(ranges), int(segments) > 0
