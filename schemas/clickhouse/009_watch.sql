-- The watch over the fleet: what it looks at, what it remembers, what it found.

-- One row for each run of messages of one device in a segment with the same epoch, software, configuration and outcome: how
-- much it said, how late, and the last plausible value of each signal in its last message. The watch asks this table
-- alone (and `rejections`), never `events`: a vehicle that sends a thousand events a second is one row a second here.
CREATE TABLE IF NOT EXISTS pulses
(
    tenant LowCardinality(String),
    vehicle_id LowCardinality(String),
    device_id LowCardinality(String),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'of the last of them',
    event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'of its last event, by the clock of the device',
    outcome LowCardinality(String) COMMENT 'accepted, held; of held ones no values are kept',
    software LowCardinality(String),
    config LowCardinality(String),
    epoch UInt32 CODEC(ZSTD(1)),
    first_seq UInt64 CODEC(ZSTD(1)),
    last_seq UInt64 CODEC(ZSTD(1)),
    messages UInt32 CODEC(ZSTD(1)),
    late UInt32 CODEC(ZSTD(1)) COMMENT 'messages with this flag',
    delay_ms Int64 CODEC(ZSTD(1)) COMMENT 'the least of received_at - sent_at; negative: its clock is ahead',
    events UInt32 CODEC(ZSTD(1)),
    faults UInt32 CODEC(ZSTD(1)) COMMENT 'events of this kind',
    unknown UInt32 CODEC(ZSTD(1)) COMMENT 'events with names that the catalogue does not have',
    readings UInt32 CODEC(ZSTD(1)),
    implausible UInt32 CODEC(ZSTD(1)) COMMENT 'readings',
    signal_ids Array(UInt16) CODEC(ZSTD(1)),
    signal_values Array(Float64) CODEC(ZSTD(1)),
    spool LowCardinality(String),
    segment UInt64 CODEC(Delta, ZSTD(1)),
    record_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'of the first of the messages'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(received_at)
ORDER BY (received_at, tenant, vehicle_id)
TTL toDateTime(received_at) + toIntervalDay(7)
SETTINGS ttl_only_drop_parts = 1,
         non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- What was usual in each hour, of everything that the watch compares: so that it knows the hours of a day.
CREATE TABLE IF NOT EXISTS usual
(
    tenant LowCardinality(String),
    kind LowCardinality(String),
    cohort LowCardinality(String),
    signal LowCardinality(String),
    hour DateTime('UTC') CODEC(Delta, ZSTD(1)),
    middle Float64 COMMENT 'the median of the looks of this hour',
    scatter Float64 COMMENT 'their median absolute deviation from it',
    looks UInt32
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, tenant, kind, cohort, signal)
TTL hour + toIntervalDay(35);

-- What the watch over the fleet found, and what edges raised. A row for each opening and each closing; none is changed.
CREATE TABLE IF NOT EXISTS alerts
(
    alert_id String COMMENT 'of key and opened_at: the same for the opening and the closing',
    key String COMMENT 'what it is about; of one key at most one alert is open',
    state LowCardinality(String) COMMENT 'open or closed',
    at DateTime64(3, 'UTC') COMMENT 'of this opening or closing',
    kind LowCardinality(String),
    tenant LowCardinality(String),
    cohort String COMMENT 'whose vehicles: software, configuration, cell of the map ...; empty: all of the tenant',
    signal LowCardinality(String) COMMENT 'VSS path, or reason of refusals; empty where it is about neither',
    before Float64 COMMENT 'what was usual, in the unit of what the kind compares',
    after Float64 COMMENT 'what was found when it opened',
    vehicles UInt64 COMMENT 'how many it is about',
    opened_at DateTime64(3, 'UTC'),
    closed_at Nullable(DateTime64(3, 'UTC')),
    detail String COMMENT 'JSON: what else the kind says'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(opened_at)
ORDER BY (opened_at, alert_id, state)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Each alert as it stands.
CREATE OR REPLACE VIEW alerts_now AS
SELECT
    alert_id,
    any(key) AS key,
    if(closed_at IS NULL, 'open', 'closed') AS state,
    any(kind) AS kind,
    any(tenant) AS tenant,
    any(cohort) AS cohort,
    any(signal) AS signal,
    any(before) AS before,
    any(after) AS after,
    any(vehicles) AS vehicles,
    any(a.opened_at) AS opened_at,
    max(a.closed_at) AS closed_at,
    any(detail) AS detail
FROM alerts AS a
GROUP BY alert_id;
