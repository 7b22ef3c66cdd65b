"""Proof: what is stored, compared with what was signed. Reads ClickHouse, spool and records; changes nothing.

segments.py   every segment: chain, signed heads, numbers, rows
rows.py       the rows of segments against the counts and hashes that were stored with them
released.py   held events that a decision released, against the held rows and the decisions
heads.py      signed heads from wherever they are kept
audit.py      the audit of the control records: chain, signed heads
auditwalk.py  the way along its chain: every row of its table
message.py    one message: signed bytes, MAC, rows, certificate, segment, head
compare.py    its rows, field by field
ranges.py     the gap ledger against the rows that it follows from
stored.py     what is stored of one message
findings.py   what a verification says
"""
