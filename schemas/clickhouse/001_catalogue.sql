-- What the numbers of signals mean. Filled from signals.toml whenever migrations run; the newest row of a number counts.
CREATE TABLE IF NOT EXISTS signals
(
    number UInt16,
    path String,
    unit LowCardinality(String),
    minimum Nullable(Float64),
    maximum Nullable(Float64),
    max_rate_per_second Nullable(Float64),
    updated_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY number;
