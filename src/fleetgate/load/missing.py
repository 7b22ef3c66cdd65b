"""Which rows of a segment are not in a table yet, told by their place: offset of the record, index of the event.

A place is never given twice within a segment, and a repair moves no record: so this holds whatever was tried before,
under whatever token. Only ranges of numbers grow with a repair: they are told apart by what they say. It reads the
places of all rows that are there, and so is for segments of which some are.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fleetgate.load.clickhouse import ClickHouse
from fleetgate.load.columns import Rows
from fleetgate.spool.reader import Segment

_INDEX_BITS = 16  # of event_index, a UInt16; offsets are u32


class Missing(NamedTuple):
    """`rows` that are not there, and a `name` that is the same for the same rows."""

    rows: pa.Table
    name: str


def missing_rows(clickhouse: ClickHouse, segment: Segment, part: Rows) -> Missing:
    """Raises ClickHouseAway."""
    if part.table == "received_ranges":
        return _missing_ranges(clickhouse, segment, part)
    index = "event_index" if "event_index" in part.rows.column_names else "0"
    there = _there(clickhouse, segment, part, f"record_offset, {index}")
    places = _places(part.rows)
    known = np.array([(int(offset) << _INDEX_BITS) + int(event) for offset, event in there], dtype=np.uint64)
    new = ~np.isin(places, known)
    return Missing(part.rows.filter(pa.array(new)), _name(places[new].tobytes()))


def _missing_ranges(clickhouse: ClickHouse, segment: Segment, part: Rows) -> Missing:
    columns = ("record_offset", "epoch", "first_seq", "last_seq")
    known = {tuple(map(int, row)) for row in _there(clickhouse, segment, part, ", ".join(columns))}
    ranges = list(zip(*(part.rows.column(name).to_pylist() for name in columns), strict=True))
    new = [each not in known for each in ranges]
    missing = [each for each, is_new in zip(ranges, new, strict=True) if is_new]
    return Missing(part.rows.filter(pa.array(new, type=pa.bool_())), _name(repr(missing).encode()))


def rows_there(clickhouse: ClickHouse, segment: Segment, part: Rows) -> int:
    """How many rows of the segment, of this table and day, whatever they say. Raises ClickHouseAway."""
    [[count]] = _there(clickhouse, segment, part, "count()")
    return int(count)


def _there(clickhouse: ClickHouse, segment: Segment, part: Rows, columns: str) -> list[list[Any]]:
    return clickhouse.rows(
        f"SELECT {columns} FROM {part.table} WHERE spool = {{spool:String}} "  # noqa: S608  a table of ours
        "AND segment = {segment:UInt64} AND toYYYYMMDD(received_at) = toYYYYMMDD(toDate({day:UInt16}))",
        {"spool": segment.header.spool.hex(), "segment": segment.header.segment, "day": part.day},
    )


def _name(places: bytes) -> str:
    return hashlib.sha256(places).hexdigest()[:16]


def _places(rows: pa.Table) -> NDArray[np.uint64]:
    places: NDArray[np.uint64] = rows.column("record_offset").to_numpy().astype(np.uint64) << np.uint64(_INDEX_BITS)
    if "event_index" in rows.column_names:
        places += rows.column("event_index").to_numpy().astype(np.uint64)
    return places
