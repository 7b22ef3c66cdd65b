"""Load: sealed segments of the spool become rows in ClickHouse, each exactly once.

service.py       the process: who is opened in which order; ending.py: how it ends
records.py       the records of control, opened when there is something to say
loader.py        the loop: segment -> control -> columns -> inserts -> cursor
patience.py      what cannot be done now is tried until it can
handover.py      who gets a segment besides its tables
transitions.py   segment -> control, whether ClickHouse is there or not
opening.py       a segment's messages as arrays
layout.py        those that look alike, opened together
readings.py      the others, each by itself
ranges.py        which numbers came: the gap ledger, asked by gaps.py
pulses.py        what of them the watch over the fleet looks at
columns.py       the arrays as the rows of each table; arrow.py: how columns travel
unknown.py       names that the catalogue does not have, bounded
inserts.py       one segment into ClickHouse, so that any repetition changes nothing
incarnation.py   which life of ClickHouse this is: what it has forgotten
rollups.py       completed where an insert ended halfway
release.py       held events into `events`, where a person released them; held.py tells how far it is
missing.py       which of its rows are not there yet
isolation.py     one bad row costs its message and no other
parking.py       where segments go that cannot be loaded
skipped.py       numbers of segments that were not there
rowshash.py      one hash of a segment's rows, here and in SQL
chain.py         the rows of `segments`, each linked to the one before
chainmemory.py   the end of the chain, out of reach of ClickHouse
absent.py        rows of a segment that may still come
steady.py        threads beside the segments, which nothing unforeseen ends
heads.py         the end of the chain, signed by the signer
auditheads.py    the end of the audit, signed by it too
plausibility.py  which readings cannot be true
watch/           is the fleet as it was? A thread that looks every ten seconds
alerts.py        what opens once and closes once: of the edges by edgealerts.py, or closed by a person, closings.py
webhooks.py      tells it to others; posting.py and addresses.py say how and where to, signature.py who it was,
                 circuit.py when to leave one alone
suspects.py      what values say about single devices, told to control
travel.py        two positions too far apart for the time between them
alertlist.py     those that a person asks for
lag.py           how far it is behind
progress.py      how far it has come, told to control
counts.py        its figures for Prometheus
memory.py        what was freed goes back to the system
clickhouse.py    the one client, of a server; embedded.py: of chdb; endpoint.py: which of them the configuration names
migrations.py    schemas/clickhouse/*.sql, applied in order
owner.py         the HTTP interface of an embedded ClickHouse: statement.py, answer.py
ask.py           a person's way to ClickHouse; casefile.py: what it has of a device under suspicion;
                 running.py: who runs what
"""
