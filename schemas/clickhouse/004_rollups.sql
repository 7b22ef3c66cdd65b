-- Sums that are kept while loading. Each target has a window of its own: with
-- deduplicate_blocks_in_dependent_materialized_views a repeated insert neither doubles nor misses them.
-- They are partitioned by the day of receipt too, because event_time is the device's word.

-- Plausible readings of one vehicle, signal and minute (of event_time).
CREATE TABLE IF NOT EXISTS signal_minute
(
    tenant LowCardinality(String),
    vehicle_id LowCardinality(String),
    signal_id UInt16,
    minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    received_day Date,
    readings SimpleAggregateFunction(sum, UInt64),
    total SimpleAggregateFunction(sum, Float64),
    least SimpleAggregateFunction(min, Float64),
    greatest SimpleAggregateFunction(max, Float64),
    last AggregateFunction(argMax, Float64, DateTime64(3, 'UTC')),
    last_at SimpleAggregateFunction(max, DateTime64(3, 'UTC'))
)
ENGINE = AggregatingMergeTree
PARTITION BY received_day
ORDER BY (tenant, vehicle_id, signal_id, minute)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS signal_minute_feed TO signal_minute AS
SELECT
    tenant,
    vehicle_id,
    signal_id,
    toStartOfMinute(toDateTime(event_time, 'UTC')) AS minute,
    toDate(received_at) AS received_day,
    count() AS readings,
    sum(value) AS total,
    min(value) AS least,
    max(value) AS greatest,
    argMaxState(value, event_time) AS last,
    max(event_time) AS last_at
FROM events
ARRAY JOIN signal_ids AS signal_id, signal_values AS value
WHERE empty(implausible) OR NOT has(implausible, signal_id)
GROUP BY tenant, vehicle_id, signal_id, minute, received_day;

-- The fleet in one minute (of received_at), by what its vehicles run: what a sudden change shows in first.
CREATE TABLE IF NOT EXISTS fleet_minute
(
    tenant LowCardinality(String),
    software LowCardinality(String),
    config LowCardinality(String),
    minute DateTime('UTC') CODEC(Delta, ZSTD(1)),
    received_day Date,
    events SimpleAggregateFunction(sum, UInt64),
    faults SimpleAggregateFunction(sum, UInt64),
    readings SimpleAggregateFunction(sum, UInt64),
    implausible SimpleAggregateFunction(sum, UInt64),
    unknown SimpleAggregateFunction(sum, UInt64),
    late SimpleAggregateFunction(sum, UInt64),
    out_of_order SimpleAggregateFunction(sum, UInt64),
    vehicles AggregateFunction(uniq, LowCardinality(String))
)
ENGINE = AggregatingMergeTree
PARTITION BY received_day
ORDER BY (tenant, minute, software, config)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS fleet_minute_feed TO fleet_minute AS
SELECT
    tenant,
    software,
    config,
    toStartOfMinute(toDateTime(received_at, 'UTC')) AS minute,
    toDate(received_at) AS received_day,
    count() AS events,
    countIf(kind = 'fault') AS faults,
    sum(length(signal_ids)) AS readings,
    sum(length(events.implausible)) AS implausible,
    sum(length(unknown_values) + unknown_dropped) AS unknown,
    countIf(bitAnd(flags, 2) != 0) AS late,
    countIf(bitAnd(flags, 1) != 0) AS out_of_order,
    uniqState(vehicle_id) AS vehicles
FROM events
GROUP BY tenant, software, config, minute, received_day;
