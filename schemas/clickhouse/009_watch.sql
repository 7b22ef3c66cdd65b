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
