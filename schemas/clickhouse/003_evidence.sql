-- What the gate did with everything else: the signed bytes, the refusals, and the segments both came in.

-- Every accepted or held message as received, so that a row can be proved again from its signature.
CREATE TABLE IF NOT EXISTS raw_messages
(
    tenant LowCardinality(String),
    vehicle_id LowCardinality(String),
    device_id LowCardinality(String),
    epoch UInt32,
    seq UInt64,
    sent_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'accepted or held',
    flags UInt16,
    events UInt16 COMMENT 'number of events in the message',
    envelope String CODEC(ZSTD(1)) COMMENT 'the bytes as received',
    key_digest LowCardinality(String) COMMENT 'SHA-256 of the public key that the authentication key is bound to, hex',
    certificate_fingerprint LowCardinality(String),
    key_id UInt32,
    address LowCardinality(String),
    transport LowCardinality(String),
    edge_id LowCardinality(String),
    spool LowCardinality(String),
    segment UInt64,
    record_offset UInt64
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(received_at)
ORDER BY (tenant, device_id, epoch, seq)
TTL toDateTime(received_at) + toIntervalDay(${raw_days})
SETTINGS ttl_only_drop_parts = 1,
         index_granularity_bytes = 1048576, -- an envelope is up to 64 KiB: with granules of 10 MiB a merge took 260 MiB
         non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Refusals of one peer and one reason within one commit. The names are those of the authenticated peer, never claims.
CREATE TABLE IF NOT EXISTS rejections
(
    tenant LowCardinality(String),
    vehicle_id LowCardinality(String),
    device_id LowCardinality(String),
    reason LowCardinality(String),
    refused UInt64 COMMENT 'number of refusals in this row',
    first_at DateTime64(3, 'UTC'),
    received_at DateTime64(3, 'UTC') COMMENT 'of the last of them',
    ranges Array(Tuple(epoch UInt32, first_seq UInt64, last_seq UInt64)) COMMENT 'of those whose signature was good',
    certificate_fingerprint LowCardinality(String),
    address LowCardinality(String),
    transport LowCardinality(String),
    edge_id LowCardinality(String),
    spool LowCardinality(String),
    segment UInt64,
    record_offset UInt64
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(received_at)
ORDER BY (tenant, reason, received_at, device_id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- One row for each segment, written after all its other rows: what has a row here is completely loaded.
CREATE TABLE IF NOT EXISTS segments
(
    spool LowCardinality(String),
    segment UInt64,
    sha256 String COMMENT 'of the file, hex',
    previous_sha256 String COMMENT 'of the segment before it; empty for the first one loaded',
    bytes UInt64,
    opened_at DateTime64(3, 'UTC'),
    first_received_at Nullable(DateTime64(3, 'UTC')),
    last_received_at Nullable(DateTime64(3, 'UTC')),
    messages UInt64,
    events UInt64,
    held_events UInt64,
    rejections UInt64,
    raw_messages UInt64,
    transitions UInt64,
    damaged UInt64 COMMENT 'records whose checksum failed',
    loaded_at DateTime64(3, 'UTC')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(loaded_at)
ORDER BY (spool, segment)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
