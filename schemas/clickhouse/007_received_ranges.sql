-- The gap ledger: which sequence numbers came, and from that, which did not.

-- Runs of numbers that one segment brought of one device and epoch, by outcome. Overlaps of rows are harmless: a number
-- that is in two of them was received once.
CREATE TABLE IF NOT EXISTS received_ranges
(
    tenant LowCardinality(String),
    vehicle_id LowCardinality(String),
    device_id LowCardinality(String),
    epoch UInt32 CODEC(ZSTD(1)),
    first_seq UInt64 CODEC(Delta, ZSTD(1)),
    last_seq UInt64 CODEC(Delta, ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'accepted, held, refused; before_ledger: not known, from before this table',
    reason LowCardinality(String) COMMENT 'why refused; empty otherwise',
    first_received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'of the last of them',
    spool LowCardinality(String),
    segment UInt64 CODEC(Delta, ZSTD(1)),
    record_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'of the first of them in its segment'
)
ENGINE = MergeTree
PARTITION BY toYYYYMMDD(received_at)
ORDER BY (tenant, device_id, epoch, first_seq)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

ALTER TABLE segments ADD COLUMN IF NOT EXISTS received_ranges UInt64 AFTER raw_messages;

-- Rows that the tables refused for their content. They are in the segment, which is parked; the counts are without them.
ALTER TABLE segments ADD COLUMN IF NOT EXISTS refused UInt64 AFTER damaged;

-- What came before there was a ledger is not called lost.
INSERT INTO received_ranges
SELECT tenant, argMax(vehicle_id, received_at), device_id, epoch, 0, max(seq), 'before_ledger', '',
       min(received_at), max(received_at), '', 0, 0
FROM (SELECT tenant, vehicle_id, device_id, epoch, seq, received_at FROM events
      UNION ALL SELECT tenant, vehicle_id, device_id, epoch, seq, received_at FROM held_events)
GROUP BY tenant, device_id, epoch
SETTINGS max_partitions_per_insert_block = 0;

-- The numbers of each epoch that were not received, or not in their turn. A row is a run of numbers with the same fate:
--
--   missing   never received, although a higher number of the epoch was
--   refused   the gate received and refused them, for `reasons`; what they carried was not stored under these numbers
--   late      received, but after a higher number, or after a refusal of the same number
--
-- `after_at` is the receipt of the number before them (NULL: none of the epoch), `noticed_at` the first receipt of a
-- higher number or of their refusal, `came_from` and `came_at` bound the time when late ones came. Times are those of
-- the segment's range that a number is in, so they are exact to the age of a segment (a second).
--
-- Rows that overlap (a repaired segment, a refusal and its repetition) are taken apart into single numbers; all others
-- stay as they are, so that a vehicle's months cost a row for each segment that it was in. What goes on from one
-- credential of the device to the next is one epoch: a device counts on when its certificate is renewed.
CREATE OR REPLACE VIEW gaps AS
WITH
    runs AS
    (
        SELECT
            *,
            sum(begins) OVER (PARTITION BY tenant, device_id, epoch ORDER BY first_seq, last_seq
                              ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS heap
        FROM
        (
            SELECT
                tenant, vehicle_id, device_id, epoch, first_seq, last_seq, outcome, reason, first_received_at, received_at,
                first_seq > max(last_seq) OVER (PARTITION BY tenant, device_id, epoch ORDER BY first_seq, last_seq
                                                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS begins
            FROM received_ranges
        )
    ),
    split AS
    (
        SELECT
            *,
            arrayJoin(if(rows_in_heap = 1, [(first_seq, last_seq)],
                         arrayMap(number -> (number, number), range(first_seq, last_seq + 1)))) AS piece
        FROM (SELECT *, count() OVER (PARTITION BY tenant, device_id, epoch, heap) AS rows_in_heap FROM runs)
    ),
    pieces AS
    (
        SELECT
            tenant, device_id, epoch, piece.1 AS low, piece.2 AS high,
            argMin(s.vehicle_id, (s.received_at, s.vehicle_id)) AS vehicle_id,
            minOrNullIf(s.first_received_at, s.outcome != 'refused') AS came_from,
            minOrNullIf(s.received_at, s.outcome != 'refused') AS came_at,
            minOrNullIf(s.received_at, s.outcome = 'refused') AS refused_at,
            arraySort(groupUniqArrayIf(s.reason, s.outcome = 'refused')) AS reasons,
            minOrNullIf(s.received_at, s.first_seq = piece.1) AS begun_at
        FROM split AS s
        GROUP BY tenant, device_id, epoch, low, high
    ),
    placed AS
    (
        SELECT
            *,
            max(high + 1) OVER (PARTITION BY tenant, device_id, epoch ORDER BY low
                                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS expected,
            min(begun_at) OVER (PARTITION BY tenant, device_id, epoch ORDER BY low
                                ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS hole_noticed_at,
            min(begun_at) OVER (PARTITION BY tenant, device_id, epoch ORDER BY low
                                ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING) AS overtaken_at
        FROM pieces
    ),
    judged AS
    (
        SELECT
            *,
            least(ifNull(overtaken_at, refused_at), ifNull(refused_at, overtaken_at)) AS own_noticed_at,
            multiIf(came_from IS NULL, 'refused', ifNull(came_from > own_noticed_at, 0), 'late', '') AS own_state
        FROM placed
    ),
    marked AS
    (
        SELECT
            *,
            anyLast(if(own_state = '', came_at, NULL)) OVER (
                PARTITION BY tenant, device_id, epoch ORDER BY low
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before_at
        FROM judged
    ),
    found AS
    (
        SELECT
            m.tenant AS tenant, m.vehicle_id AS vehicle_id, m.device_id AS device_id, m.epoch AS epoch,
            gap.1 AS from_seq,
            gap.2 AS to_seq,
            gap.3 AS state,
            if(state = 'missing', [], m.reasons) AS reasons,
            if(state = 'missing', m.hole_noticed_at, m.own_noticed_at) AS noticed_at,
            if(m.before_at > noticed_at, noticed_at, m.before_at) AS after_at,
            if(state = 'late', m.came_from, NULL) AS came_from,
            if(state = 'late', m.came_at, NULL) AS came_at
        FROM marked AS m
        ARRAY JOIN arrayFilter(
            one -> one.3 != '',
            [(m.expected, toUInt64(m.low - 1), if(m.low > m.expected, 'missing', '')), (m.low, m.high, m.own_state)]) AS gap
    ),
    runs_of_one_fate AS
    (
        SELECT
            *,
            from_seq - sum(to_seq - from_seq + 1) OVER (
                PARTITION BY tenant, device_id, epoch, vehicle_id, state, reasons, after_at, noticed_at, came_from, came_at
                ORDER BY from_seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS island
        FROM found
    )
SELECT
    tenant,
    vehicle_id,
    device_id,
    epoch,
    min(from_seq) AS first_seq,
    max(to_seq) AS last_seq,
    last_seq - first_seq + 1 AS numbers,
    state,
    reasons,
    after_at,
    noticed_at,
    came_from,
    came_at
FROM runs_of_one_fate
GROUP BY tenant, device_id, epoch, vehicle_id, state, reasons, after_at, noticed_at, came_from, came_at, island;
