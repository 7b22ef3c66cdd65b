"""Load: sealed segments of the spool become rows in ClickHouse, each exactly once.

loader.py        the loop: segment -> control -> columns -> inserts -> cursor
transitions.py   segment -> control, whether ClickHouse is there or not
opening.py       a segment's messages as arrays
layout.py        those that look alike, opened together
readings.py      the others, each by itself
ranges.py        which numbers came: the gap ledger, asked by gaps.py
columns.py       the arrays as the rows of each table
rowshash.py      one hash of a segment's rows, here and in SQL
chain.py         the rows of `segments`, each linked to the one before
heads.py         the end of the chain, signed by the signer once a minute
plausibility.py  which readings cannot be true
lag.py           how far it is behind
memory.py        what was freed goes back to the system
clickhouse.py    the one client, embedded or of a server
migrations.py    schemas/clickhouse/*.sql, applied in order
owner.py         the HTTP interface of an embedded ClickHouse
"""
