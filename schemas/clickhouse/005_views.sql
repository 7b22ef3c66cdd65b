-- What analysts read.

-- One row for each reading, with its name, unit and provenance.
CREATE OR REPLACE VIEW readings AS
SELECT
    e.tenant AS tenant,
    e.vehicle_id AS vehicle_id,
    e.device_id AS device_id,
    e.event_time AS event_time,
    e.kind AS kind,
    reading.1 AS signal_id,
    s.path AS path,
    s.unit AS unit,
    reading.2 AS value,
    NOT has(e.implausible, signal_id) AS plausible,
    e.sent_at AS sent_at,
    e.received_at AS received_at,
    e.epoch AS epoch,
    e.seq AS seq,
    e.event_index AS event_index,
    e.software AS software,
    e.config AS config,
    e.certificate_fingerprint AS certificate_fingerprint,
    e.key_id AS key_id,
    e.transport AS transport,
    e.edge_id AS edge_id,
    e.spool AS spool,
    e.segment AS segment,
    e.record_offset AS record_offset,
    e.schema_version AS schema_version,
    e.policy_version AS policy_version,
    e.flags AS flags,
    e.decision AS decision
FROM (SELECT *, arrayJoin(arrayZip(signal_ids, signal_values)) AS reading FROM events) AS e
LEFT JOIN (SELECT number, path, unit FROM signals FINAL) AS s ON s.number = reading.1;

-- The last plausible value of each signal of each vehicle, by event time.
CREATE OR REPLACE VIEW latest AS
SELECT m.tenant AS tenant, m.vehicle_id AS vehicle_id, m.signal_id AS signal_id, s.path AS path, s.unit AS unit,
       m.value AS value, m.event_time AS event_time
FROM
(
    SELECT tenant, vehicle_id, signal_id, argMaxMerge(last) AS value, max(last_at) AS event_time
    FROM signal_minute
    GROUP BY tenant, vehicle_id, signal_id
) AS m
LEFT JOIN (SELECT number, path, unit FROM signals FINAL) AS s ON s.number = m.signal_id;
