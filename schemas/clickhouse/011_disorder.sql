-- What kind of disorder refused messages were (docs/explanation/quarantine.md); empty for none, and in earlier rows, whose
-- hashes were made without it.
ALTER TABLE rejections ADD COLUMN IF NOT EXISTS disorder LowCardinality(String) AFTER reason;
