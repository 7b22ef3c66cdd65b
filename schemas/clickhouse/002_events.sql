-- One row for each event, its readings in two parallel arrays, and where it came from on every row.
--
-- Partitions are days of received_at: the gate's clock, which no message's content can move. A repeated insert of a
-- segment is recognised by its token within the deduplication window, and a part is on disk before the insert returns.
CREATE TABLE IF NOT EXISTS events
(
    tenant LowCardinality(String),
    vehicle_id LowCardinality(String),
    device_id LowCardinality(String),
    event_time DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    kind LowCardinality(String),
    signal_ids Array(UInt16) CODEC(ZSTD(1)),
    signal_values Array(Float64) CODEC(ZSTD(1)),
    implausible Array(UInt16) COMMENT 'signals of this event whose value or rate of change is beyond the catalogue',
    unknown_values Map(LowCardinality(String), Float64) COMMENT 'signals that are not in the catalogue; #n for a number',
    unknown_dropped UInt16 COMMENT 'unknown names not kept: a tenant has at most 64',
    texts Map(LowCardinality(String), String),

    sent_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    epoch UInt32 CODEC(ZSTD(1)),
    seq UInt64 CODEC(Delta, ZSTD(1)),
    event_index UInt16 COMMENT 'place of the event in its message, from 0',
    software LowCardinality(String),
    config LowCardinality(String),
    certificate_fingerprint LowCardinality(String) COMMENT 'SHA-256 of the certificate that verified the message, hex',
    key_id UInt32 COMMENT 'kid: the root key of the message authentication code',
    transport LowCardinality(String),
    edge_id LowCardinality(String),
    spool LowCardinality(String) COMMENT 'identity of the spool, hex; with segment it names a file for ever',
    segment UInt64 CODEC(Delta, ZSTD(1)),
    record_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'of the message in its segment',
    schema_version UInt8,
    policy_version LowCardinality(String),
    flags UInt16,
    decision LowCardinality(String) COMMENT 'the decision that released the event from quarantine; empty otherwise',
    flag_names Array(String) ALIAS arrayFilter(
        (name, bit) -> bitAnd(flags, bit) != 0,
        ['out_of_order', 'late', 'epoch_jump', 'clock_skew', 'stale_revocation', 'former_credential',
         'unknown_signal', 'implausible'],
        [1, 2, 4, 8, 16, 32, 256, 512])
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(received_at)
ORDER BY (tenant, vehicle_id, event_time, device_id, epoch, seq, event_index)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- The verified events of quarantined devices: the same columns, kept apart until a person decides.
CREATE TABLE IF NOT EXISTS held_events AS events
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(received_at)
ORDER BY (tenant, device_id, event_time, epoch, seq, event_index)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- The names in unknown_values and texts that the catalogue does not have. Load reads them at start: 64 for each tenant.
CREATE TABLE IF NOT EXISTS unknown_names
(
    tenant LowCardinality(String),
    name String,
    first_received_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (tenant, name)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
