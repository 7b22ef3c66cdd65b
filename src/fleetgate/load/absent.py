"""Where rows of a segment may still come: offsets of its file whose records are not in a table when its row is written.

Decides which these are: damaged bytes and what a repair gave up, records that cannot be opened or whose peer is lost,
and what ClickHouse refused. A row of the chain names them, so that what comes later can be told from what it stands
for. They follow from the file and from ClickHouse's refusals alone. What a later row would have added could not be said
exactly: a completion that was cut off leaves rows which the next try finds there.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pyarrow as pa

from fleetgate.load.columns import SegmentRows
from fleetgate.load.isolation import Refusal
from fleetgate.load.rowshash import FORMS
from fleetgate.spool.reader import Segment

Span = tuple[int, int]
"""First and last offset."""

END = 2**63 - 1
"""Of a span to the end of the file: a repair may find a longer one."""


def absent(segment: Segment, rows: SegmentRows, refused: list[Refusal]) -> dict[str, list[Span]]:
    """By table, ascending; none holds the offset of a row that was taken."""
    unread = _unread(segment, rows.undecodable)
    found: dict[str, list[Span]] = {}
    for table in FORMS:
        offsets = [offset for refusal in refused if refusal.table == table for offset in refusal.offsets]
        spans = sorted([*unread, *((offset, offset) for offset in offsets)])
        found[table] = _joined(spans, table, rows, offsets) if spans else []
    return found


def _unread(segment: Segment, undecodable: list[int]) -> list[Span]:
    good = np.sort(np.array(segment.offsets, dtype=np.int64))
    spans = [(offset, offset) for offset in undecodable]
    spans += [(offset, offset) for offset, record in segment.rejections if record.peer not in segment.peers]
    spans += [(offset, offset + size - 1) for offset, size in segment.lost]
    for damage in segment.damaged:
        behind = int(np.searchsorted(good, damage.offset, side="right"))
        spans.append((damage.offset, int(good[behind]) - 1 if behind < len(good) else END))
    return spans


def _joined(spans: list[Span], table: str, rows: SegmentRows, refused: list[int]) -> list[Span]:
    """One span for neighbours without a taken row between them: a lost peer leaves 100,000 records without rows."""
    parts = [part.rows.column("record_offset").to_numpy() for part in rows.rows if part.table == table]
    offsets = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)
    taken = offsets[~np.isin(offsets, refused)].astype(np.int64)
    places = np.searchsorted(taken, np.array([first for first, _ in spans], dtype=np.int64)).tolist()
    heaps = groupby(zip(places, spans, strict=True), key=lambda item: item[0])
    joined = [[span for _, span in heap] for _, heap in heaps]
    return [(some[0][0], max(last for _, last in some)) for some in joined]


SPANS = pa.list_(pa.struct([("1", pa.uint64()), ("2", pa.uint64())]))
"""As ClickHouse takes an Array(Tuple(UInt64, UInt64))."""
