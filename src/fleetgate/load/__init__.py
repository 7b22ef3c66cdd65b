"""Load: sealed segments of the spool become rows in ClickHouse, each exactly once.

loader.py        the loop: segment -> control -> columns -> inserts -> cursor
transitions.py   segment -> control, whether ClickHouse is there or not
columns.py       a segment's messages as columns
plausibility.py  which readings cannot be true
clickhouse.py    the one client, embedded or of a server
migrations.py    schemas/clickhouse/*.sql, applied in order
owner.py         the HTTP interface of an embedded ClickHouse
"""
