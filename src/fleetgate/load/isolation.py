"""One bad row among 250,000: found by halving, so that it costs its message and no other.

Decides how an insert that ClickHouse refuses is cut into blocks of whole messages. A block is cut only when it was
refused, so with nothing of it stored, and each has a token of its own, made of its place. Whatever ends the process,
the next try finds which rows are there (inserts.py). Why it is done so: docs/adr/0006-poison-isolation.md.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fleetgate.load.clickhouse import Refused
from fleetgate.load.columns import SegmentRows
from fleetgate.load.rowshash import rows_hash

MAX_REFUSED = 16
"""So many blocks of an insert are set aside before what is still refused is cut no further. One message in 250,000
takes 18 cuts; with everything refused (a constraint that was a mistake) the inserts of a segment cost three times as
much, and the segments behind it still come."""


class Refusal(NamedTuple):
    """Rows of a table that ClickHouse did not take: those of the records at `offsets` of the segment."""

    table: str
    offsets: list[int]
    rows: int
    error: Refused


def insert_apart(insert: Callable[[str, pa.Table, str], None], table: str, rows: pa.Table, token: str) -> list[Refusal]:
    """Inserts what ClickHouse takes of `rows`, of which a whole insert was refused; gives back the rest.

    Raises ClickHouseAway.
    """
    offsets = rows.column("record_offset").to_numpy()
    messages = np.flatnonzero(np.diff(offsets)) + 1  # a message's rows stand beside one another
    middle = [int(messages[len(messages) // 2])] if len(messages) else []
    blocks = deque(itertools.pairwise([0, *middle, len(offsets)]))
    refused: list[Refusal] = []
    while blocks:
        start, end = blocks.popleft()
        try:
            insert(table, rows.slice(start, end - start), f"{token}-{start}-{end}")
        except Refused as error:
            inner = messages[(messages > start) & (messages < end)]
            if not len(inner) or len(refused) >= MAX_REFUSED:
                refused.append(Refusal(table, np.unique(offsets[start:end]).tolist(), end - start, error))
                continue
            cut = int(inner[len(inner) // 2])
            blocks.extendleft([(cut, end), (start, cut)])
    return refused


def without(rows: SegmentRows, refused: list[Refusal]) -> SegmentRows:
    """What ClickHouse took: the counts and hashes of `rows` but for the refused ones."""
    counts, hashes = dict(rows.counts), dict(rows.hashes)
    for table in {refusal.table for refusal in refused} & counts.keys():
        offsets = [offset for refusal in refused if refusal.table == table for offset in refusal.offsets]
        whole = pa.concat_tables([part.rows for part in rows.rows if part.table == table])
        taken = whole.filter(~np.isin(whole.column("record_offset").to_numpy(), offsets))
        counts[table] = taken.num_rows
        if table in hashes:
            hashes[table] = rows_hash(table, taken)
    return rows._replace(counts=counts, hashes=hashes)


def in_words(refused: list[Refusal]) -> str:
    """For the file beside the parked segment."""
    tables = {refusal.table: 0 for refusal in refused}
    for refusal in refused:
        tables[refusal.table] += refusal.rows
    counts = ", ".join(f"{rows} rows of {table}" for table, rows in tables.items())
    places = sorted({offset for refusal in refused for offset in refusal.offsets})
    more = f" and {len(places) - 20} more" if len(places) > 20 else ""
    return f"{counts} are not in ClickHouse, of the records at {places[:20]}{more}: {refused[0].error}"
