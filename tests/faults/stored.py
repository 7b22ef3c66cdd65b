"""What stands in ClickHouse after a fault, read whole: for the oracle, which decides whether it is right."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from msgspec import Struct, structs

from fleetgate.load.clickhouse import ClickHouse

Place = tuple[str, int, int]
"""(spool, segment, offset of the record)."""

Rollup = tuple[dict[Any, Any], dict[Any, Any]]
"""As it was kept while loading, and counted again from `events`."""


class Row(Struct, frozen=True, eq=True):
    """One event. `signals` by number, `unknown` and `texts` by path; times in Unix ms."""

    key: tuple[str, str, int, int, int]
    vehicle_id: str
    event_time_ms: int
    sent_at_ms: int
    kind: str
    signals: dict[int, float]
    unknown: dict[str, float]
    texts: dict[str, str]
    software: str
    config: str
    key_id: int

    def difference(self, other: Row) -> str:
        pairs = zip(self.__struct_fields__, structs.astuple(self), structs.astuple(other), strict=True)
        return "; ".join(f"{name} is {mine}, was sent as {sent}" for name, mine, sent in pairs if mine != sent)


class Raw(Struct, frozen=True):
    """A row of raw_messages."""

    tenant: str
    device_id: str
    vehicle_id: str
    epoch: int
    seq: int
    outcome: str
    envelope: bytes
    place: Place

    @property
    def key(self) -> tuple[str, str, int, int]:
        return (self.tenant, self.device_id, self.epoch, self.seq)


class Range(Struct, frozen=True):
    """A row of received_ranges; `reason` is empty where nothing was refused."""

    tenant: str
    device_id: str
    epoch: int
    first: int
    last: int
    outcome: str
    reason: str


_EVENTS = """
SELECT tenant, device_id, epoch, seq, event_index, vehicle_id, toUnixTimestamp64Milli(event_time),
    toUnixTimestamp64Milli(sent_at), kind, signal_ids, signal_values, unknown_values, texts, software, config, key_id
FROM {table} WHERE decision {whose} ''
"""
_RAW = """
SELECT tenant, device_id, vehicle_id, epoch, seq, outcome, hex(envelope), spool, segment, record_offset
FROM raw_messages
"""
_REFUSED = "SELECT tenant, device_id, reason, sum(refused) FROM rejections GROUP BY ALL"
_OWNERS = "SELECT DISTINCT tenant, device_id, vehicle_id FROM {table}"
_TABLES = ("events", "held_events", "raw_messages", "rejections", "received_ranges")
_RANGES = "SELECT tenant, device_id, epoch, first_seq, last_seq, outcome, reason FROM received_ranges"

_MISCOUNTED = """
SELECT spool, segment, expected, found FROM (
    SELECT spool, segment, [sum(events), sum(held_events), sum(raw_messages), sum(rejections)] AS expected
    FROM segments GROUP BY spool, segment) AS told
FULL OUTER JOIN (
    SELECT spool, segment, [countIf(t = 1), countIf(t = 2), countIf(t = 3), countIf(t = 4)] AS found FROM (
        SELECT spool, segment, 1 AS t FROM events WHERE decision = ''
        UNION ALL SELECT spool, segment, 2 AS t FROM held_events
        UNION ALL SELECT spool, segment, 3 AS t FROM raw_messages
        UNION ALL SELECT spool, segment, 4 AS t FROM rejections)
    GROUP BY spool, segment) AS counted USING (spool, segment)
WHERE expected != found AND NOT (arraySum(expected) = 0 AND arraySum(found) = 0)
"""

_SIGNAL_MINUTE = (
    """
SELECT tenant, vehicle_id, signal_id, toString(minute), sum(readings), sum(total), min(least), max(greatest),
    toUnixTimestamp64Milli(max(last_at)), argMaxMerge(last)
FROM signal_minute GROUP BY tenant, vehicle_id, signal_id, minute
""",
    """
SELECT tenant, vehicle_id, signal_id, toString(toStartOfMinute(toDateTime(event_time, 'UTC'))) AS minute, count(),
    sum(value), min(value), max(value), toUnixTimestamp64Milli(max(event_time)) AS newest,
    groupArrayIf(value, event_time = newest_time)
FROM (SELECT *, max(event_time) OVER (PARTITION BY tenant, vehicle_id, signal_id,
          toStartOfMinute(toDateTime(event_time, 'UTC'))) AS newest_time
      FROM (SELECT tenant, vehicle_id, event_time, implausible, signal_id, value FROM events
            ARRAY JOIN signal_ids AS signal_id, signal_values AS value
            WHERE NOT has(implausible, signal_id)))
GROUP BY tenant, vehicle_id, signal_id, minute
""",
)
_FLEET_MINUTE = (
    """
SELECT tenant, software, config, toString(minute), sum(events), sum(faults), sum(readings), sum(implausible),
    sum(unknown), sum(late), sum(out_of_order), uniqMerge(vehicles)
FROM fleet_minute GROUP BY tenant, software, config, minute
""",
    """
SELECT tenant, software, config, toString(toStartOfMinute(toDateTime(received_at, 'UTC'))) AS minute, count(),
    countIf(kind = 'fault'), sum(length(signal_ids)), sum(length(implausible)),
    sum(length(unknown_values) + unknown_dropped), countIf(bitAnd(flags, 2) != 0), countIf(bitAnd(flags, 1) != 0),
    uniqExact(vehicle_id)
FROM events GROUP BY tenant, software, config, minute
""",
)


class Stored:
    """All of one database."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self.events = self._events("events")
        self.held = self._events("held_events")
        self.released = self._events("events", "!=")
        self.raw = [
            Raw(tenant, device, vehicle, int(epoch), int(seq), outcome, bytes.fromhex(raw), (spool, int(s), int(o)))
            for tenant, device, vehicle, epoch, seq, outcome, raw, spool, s, o in clickhouse.rows(_RAW)
        ]
        self.refused = Counter(
            {(tenant, device, reason): int(n) for tenant, device, reason, n in clickhouse.rows(_REFUSED)}
        )
        self.ranges = [
            Range(tenant, device, int(epoch), int(first), int(last), outcome, reason)
            for tenant, device, epoch, first, last, outcome, reason in clickhouse.rows(_RANGES)
        ]
        self.owners = {
            (str(tenant), str(device), str(vehicle))
            for table in _TABLES
            for tenant, device, vehicle in clickhouse.rows(_OWNERS.format(table=table))
        }
        self.rollups = {"signal_minute": self._signal_minute(), "fleet_minute": self._fleet_minute()}
        self.miscounted = clickhouse.rows(_MISCOUNTED)

    def _events(self, table: str, whose: str = "=") -> dict[tuple[str, str, int, int, int], list[Row]]:
        rows = defaultdict(list)
        for row in self._clickhouse.rows(_EVENTS.format(table=table, whose=whose)):
            tenant, device, epoch, seq, index, vehicle, at, sent_at, kind, ids, values, unknown, texts = row[:13]
            key = (tenant, device, int(epoch), int(seq), int(index))
            signals = dict(zip(map(int, ids), map(float, values), strict=True))
            assert len(signals) == len(ids), f"{key} has a signal twice"
            rows[key].append(Row(key, vehicle, int(at), int(sent_at), kind, signals, unknown, texts, *row[13:]))
        return dict(rows)

    def _signal_minute(self) -> Rollup:
        kept = {tuple(row[:4]): row[4:] for row in self._clickhouse.rows(_SIGNAL_MINUTE[0])}
        counted = {tuple(row[:4]): row[4:] for row in self._clickhouse.rows(_SIGNAL_MINUTE[1])}
        for key, row in counted.items():
            # Of several readings at the last moment any may be the last one.
            last = kept.get(key, [None])[-1]
            row[-1] = last if last in row[-1] else row[-1]
        return kept, counted

    def _fleet_minute(self) -> Rollup:
        kept, counted = (self._clickhouse.rows(sql) for sql in _FLEET_MINUTE)
        return {tuple(row[:4]): row[4:] for row in kept}, {tuple(row[:4]): row[4:] for row in counted}
