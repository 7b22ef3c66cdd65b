"""Columns for ClickHouse, in Arrow: of numbers, texts, times, lists and maps.

Decides how each travels: texts that repeat (tenant, vehicle, certificate) as dictionaries, so that a row costs an
index; times in milliseconds. What stands in them is decided by whoever fills a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fleetgate.load.readings import Sparse

DAY_MS = 24 * 3600 * 1000
MILLISECONDS = pa.timestamp("ms", tz="UTC")


def by_day(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The table's rows by day of received_at: one insert must touch one partition, to have one token."""
    days = table.column("received_at").cast(pa.int64()).to_numpy() // DAY_MS
    found = np.unique(days)
    if len(found) == 1:
        yield int(found[0]), table
        return
    for day in found.tolist():
        yield day, table.filter(pa.array(days == day))


def joined(arrays: Sequence[NDArray[Any]], dtype: str) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays], dtype=dtype, casting="unsafe")


def chunks(arrays: list[pa.Array], kind: pa.DataType) -> pa.ChunkedArray:
    """The arrays as they are, one behind the other: no copy of a segment's readings."""
    return pa.chunked_array(arrays, type=kind)


def words(each: list[str], index: NDArray[np.int64]) -> pa.Array:
    """For each entry of `index` the word at that place, as a dictionary of the different words."""
    places: dict[str, int] = {}
    codes = [places.setdefault(word, len(places)) for word in each]
    return dictionary(np.array(codes, dtype=np.int32)[index], places)


def dictionary(codes: NDArray[Any], words: Iterable[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(list(words), type=pa.string()))


def constant(word: str, length: int) -> pa.Array:
    return dictionary(np.zeros(length, dtype=np.int32), [word])


def times(milliseconds: NDArray[np.int64]) -> pa.Array:
    return pa.array(milliseconds).cast(MILLISECONDS)


def _offsets(counts: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))


def lists(counts: NDArray[np.int64], values: NDArray[Any]) -> pa.Array:
    return pa.ListArray.from_arrays(_offsets(counts), pa.array(values))


def maps(sparse: Sparse, events: int) -> pa.Array:
    keys = pc.take(pa.array(sparse.names, type=pa.string()), pa.array(sparse.name))
    return pa.MapArray.from_arrays(_offsets(np.bincount(sparse.event, minlength=events)), keys, sparse.value)
