-- Which life of ClickHouse this is. The table is kept in memory, so what stands in it is as old as the process: load
-- makes it a part of every token, because which tokens ClickHouse saw in an earlier life it may have forgotten.
CREATE TABLE IF NOT EXISTS incarnation
(
    id String,
    since DateTime64(3, 'UTC')
)
ENGINE = Memory;
