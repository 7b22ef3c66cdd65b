"""What a look asks ClickHouse: the pulses of a span of time, by vehicle and by signal, and the refusals.

Decides the statements; each reads one span of `pulses` or `rejections`, whose keys lead with time and tenant, and never
`events`. A span is given in Unix ms of receipt, without its beginning and with its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fleetgate.load.clickhouse import ClickHouse, Parameters
from fleetgate.load.travel import LATITUDE, LONGITUDE

LEAST_VEHICLES = 20
"""Fewer are no cohort: their medians move with each of them. It also bounds what a fleet with a configuration for each
vehicle costs."""

LEVELS = tuple(step / 20 for step in range(1, 20))
"""Quantiles that stand for the shape of a signal's values."""

_LEVELS = ", ".join(map(str, LEVELS))
_SPAN = (
    "received_at > fromUnixTimestamp64Milli({after:Int64}) AND received_at <= fromUnixTimestamp64Milli({until:Int64}) "
    "AND toYYYYMMDD(received_at) BETWEEN toYYYYMMDD(fromUnixTimestamp64Milli({after:Int64}, 'UTC')) "
    "AND toYYYYMMDD(fromUnixTimestamp64Milli({until:Int64}, 'UTC'))"
)
_VEHICLES = f"""
SELECT tenant, vehicle_id, device_id, epoch,
    argMax(software, (received_at, record_offset)) AS software, argMax(config, (received_at, record_offset)) AS config,
    count() AS pulses, sum(messages) AS messages, sum(events) AS events, sum(faults) AS faults, sum(unknown) AS unknown,
    sum(readings) AS readings, sum(implausible) AS implausible,
    min(first_seq) AS first_seq, max(last_seq) AS last_seq,
    argMax(delay_ms, (received_at, record_offset)) AS delay_ms,
    toUInt8(argMax(outcome, (received_at, record_offset)) = 'held') AS held,
    toUnixTimestamp64Milli(min(received_at)) AS first_ms, toUnixTimestamp64Milli(max(received_at)) AS last_ms,
    toUnixTimestamp64Milli(argMaxIf(event_time, (event_time, record_offset), has(signal_ids, {LATITUDE}))) AS place_ms,
    argMaxIf(signal_values[indexOf(signal_ids, {LATITUDE})], (event_time, record_offset),
             has(signal_ids, {LATITUDE}) AND has(signal_ids, {LONGITUDE})) AS latitude,
    argMaxIf(signal_values[indexOf(signal_ids, {LONGITUDE})], (event_time, record_offset),
             has(signal_ids, {LATITUDE}) AND has(signal_ids, {LONGITUDE})) AS longitude,
    toUInt8(max(has(signal_ids, {LATITUDE}) AND has(signal_ids, {LONGITUDE}))) AS located
FROM pulses WHERE {_SPAN} AND ({{tenant:String}} = '' OR tenant = {{tenant:String}})
GROUP BY tenant, vehicle_id, device_id, epoch
ORDER BY last_ms
"""  # noqa: S608  numbers of ours
_RARE = "'\\0'"
"""Stands for all labels that too few vehicles have to be a cohort: a device may name its software anew in each message,
and what is kept of each name and signal takes kilobytes."""

_OF_ALL = f"FROM pulses WHERE {_SPAN} AND outcome = 'accepted'"
_FINE = f"""
SELECT tenant, a_software AS software, a_config AS config, signal,
    countState() AS n, uniqCombinedState(15)(vehicle_id) AS v,
    uniqCombinedState(15)(vehicle_id, value) AS different,
    uniqCombinedStateIf(15)(vehicle_id, fresh) AS fresh_v, quantilesTDigestStateIf({_LEVELS})(value, fresh) AS shape
FROM
(
    SELECT tenant, vehicle_id, signal, value, received_at > fromUnixTimestamp64Milli({{fresh:Int64}}) AS fresh,
        if(software IN (SELECT software {_OF_ALL}
                        GROUP BY software HAVING uniqUpTo({LEAST_VEHICLES})(vehicle_id) >= {LEAST_VEHICLES}),
           software, {_RARE}) AS a_software,
        if((tenant, software, config) IN (SELECT tenant, software, config {_OF_ALL} GROUP BY tenant, software, config
                                          HAVING uniqUpTo({LEAST_VEHICLES})(vehicle_id) >= {LEAST_VEHICLES}),
           config, {_RARE}) AS a_config
    FROM pulses ARRAY JOIN signal_ids AS signal, signal_values AS value
    WHERE {_SPAN} AND outcome = 'accepted'
)
GROUP BY tenant, software, config, signal
"""  # noqa: S608  numbers of ours
_SIGNALS = f"""
WITH fine AS ({_FINE})
SELECT tenant, software, config, signal, toUInt8(grouping(tenant)) AS all_tenants,
    toUInt8(grouping(software)) AS all_software, toUInt8(grouping(config)) AS all_config,
    countMerge(n) AS pulses, uniqCombinedMerge(15)(v) AS vehicles, uniqCombinedMerge(15)(different) AS different,
    uniqCombinedMerge(15)(fresh_v) AS fresh, quantilesTDigestMerge({_LEVELS})(shape) AS shape
FROM fine
GROUP BY GROUPING SETS
    ((software, signal), (tenant, signal), (tenant, software, signal), (tenant, software, config, signal))
HAVING fresh > 0 AND software != {_RARE} AND config != {_RARE}
"""  # noqa: S608  numbers of ours
_REFUSALS = f"""
SELECT tenant, device_id, reason, sum(refused) AS refused FROM rejections WHERE {_SPAN}
GROUP BY tenant, device_id, reason
"""  # noqa: S608

Columns = Mapping[str, Any]
"""By name: lists of texts, arrays of numbers."""


class SignalRows(NamedTuple):
    """A row for each cohort and signal of a span: the flags say of what it has all. `shape` has the quantiles of
    LEVELS."""

    columns: Columns
    shape: NDArray[np.float64]


class Looks:
    """Asks; every method raises ClickHouseAway or Refused."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse

    def vehicles(self, after_ms: int, until_ms: int, tenant: str = "") -> Columns:
        """Of one tenant, or of all."""
        return self._ask(_VEHICLES, {"after": after_ms, "until": until_ms, "tenant": tenant})

    def signals(self, after_ms: int, fresh_ms: int, until_ms: int) -> SignalRows:
        """The shape is that of what came after `fresh_ms`; how many values differed, that of the whole span."""
        columns = self._ask(_SIGNALS, {"after": after_ms, "fresh": fresh_ms, "until": until_ms})
        return SignalRows(columns, np.array(columns["shape"], np.float64).reshape(-1, len(LEVELS)))

    def refusals(self, after_ms: int, until_ms: int) -> Columns:
        return self._ask(_REFUSALS, {"after": after_ms, "until": until_ms})

    def first_pulse(self, after_ms: int) -> int | None:
        """Receipt of the first pulse after this time, Unix ms."""
        [[found, count]] = self._clickhouse.rows(
            "SELECT toUnixTimestamp64Milli(min(received_at)), count() FROM pulses "
            "WHERE received_at > fromUnixTimestamp64Milli({after:Int64})",
            {"after": after_ms},
        )
        return int(found) if int(count) else None

    def _ask(self, sql: str, parameters: Parameters) -> Columns:
        table = pa.ipc.open_stream(self._clickhouse.raw(sql, "ArrowStream", parameters)).read_all()
        return {name: _column(table.column(name)) for name in table.column_names}


def _column(column: pa.ChunkedArray) -> Any:
    kind = column.type
    if pa.types.is_integer(kind):
        return column.cast(pa.int64(), safe=False).to_numpy()
    if pa.types.is_floating(kind):
        return column.to_numpy()
    return column.to_pylist()
