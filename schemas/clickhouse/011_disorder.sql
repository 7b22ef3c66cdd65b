-- What kind of disorder refused messages were (docs/explanation/quarantine.md); empty for none, and in earlier rows. Not
-- in the hash of a segment's rows: those of earlier segments were made without it.
ALTER TABLE rejections ADD COLUMN IF NOT EXISTS disorder LowCardinality(String) AFTER reason;
