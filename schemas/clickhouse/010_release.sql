-- What a person's decision released from quarantine: copies of held events in `events`, with the decision on each.
--
-- The rows of held_events stay: segments are hashed with them. A copy has all of its row's columns, provenance
-- included, and the name of the decision besides.

-- How far load is: for each decision and segment, which held messages of the device are in `events` by now, and how
-- many events that is. Written after them. Of a segment that grew (a repair, a retry) there are several rows, each for
-- all that was there then.
CREATE TABLE IF NOT EXISTS releases
(
    decision LowCardinality(String) COMMENT 'as in events; `fleetgate quarantine show` says whose and why',
    tenant LowCardinality(String),
    device_id LowCardinality(String),
    spool LowCardinality(String),
    segment UInt64 CODEC(Delta, ZSTD(1)),
    received_day Date,
    records Array(UInt64) COMMENT 'offsets of the messages in their segment',
    events UInt64,
    released_at DateTime64(3, 'UTC')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(released_at)
ORDER BY (tenant, device_id, decision, spool, segment)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- What is still held: in quarantine, kept as evidence by a decision that confirmed it, or waiting for load to move it.
CREATE OR REPLACE VIEW held_now AS
SELECT *
FROM held_events
WHERE (tenant, device_id, spool, segment, record_offset) NOT IN
    (SELECT tenant, device_id, spool, segment, arrayJoin(records) FROM releases);
