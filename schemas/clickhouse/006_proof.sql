-- What makes the rows provable: hashes of each segment's rows, the chain of the segments' rows, its signed heads.
-- docs/explanation/proof-of-origin.md says how each is computed and what it promises.

ALTER TABLE segments
    ADD COLUMN IF NOT EXISTS events_hash String COMMENT 'SHA-256 of the rows of the segment in events, hex; empty without rows' AFTER damaged,
    ADD COLUMN IF NOT EXISTS held_events_hash String AFTER events_hash,
    ADD COLUMN IF NOT EXISTS rejections_hash String AFTER held_events_hash,
    ADD COLUMN IF NOT EXISTS raw_messages_hash String AFTER rejections_hash,
    ADD COLUMN IF NOT EXISTS events_absent Array(Tuple(UInt64, UInt64)) COMMENT 'offsets (first, last) of records whose rows may still come' AFTER raw_messages_hash,
    ADD COLUMN IF NOT EXISTS held_events_absent Array(Tuple(UInt64, UInt64)) AFTER events_absent,
    ADD COLUMN IF NOT EXISTS rejections_absent Array(Tuple(UInt64, UInt64)) AFTER held_events_absent,
    ADD COLUMN IF NOT EXISTS raw_messages_absent Array(Tuple(UInt64, UInt64)) AFTER rejections_absent,
    ADD COLUMN IF NOT EXISTS replaces Array(String) COMMENT 'SHA-256 of the files that a repair replaced by this one, hex' AFTER raw_messages_absent,
    ADD COLUMN IF NOT EXISTS place UInt64 COMMENT 'of this row in the chain of its spool, from 1; 0: written before there was one' AFTER replaces,
    ADD COLUMN IF NOT EXISTS link String COMMENT 'SHA-256 over the link before and this row, hex' AFTER place;

-- Heads of the chain, signed by the signer process; its public key alone verifies them.
CREATE TABLE IF NOT EXISTS segment_heads
(
    spool LowCardinality(String),
    segment UInt64,
    sha256 String,
    place UInt64 COMMENT 'how many rows the chain has up to this head',
    link String,
    signed_at DateTime64(3, 'UTC'),
    key_id LowCardinality(String) COMMENT 'SHA-256 of the audit public key, hex',
    signature String COMMENT 'Ed25519, hex'
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(signed_at)
ORDER BY (spool, place)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
