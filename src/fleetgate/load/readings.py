"""Bodies as flat arrays: the events of many messages side by side, their readings one behind another.

Decides what of a body becomes a reading, an unknown value or a text. The bodies were validated by the judge; names of
unknown signals are admitted by unknown.py; nothing is dropped for its value.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fleetgate.catalogue import Catalogue
from fleetgate.judge.body import DTYPE_OF, Body, Columns
from fleetgate.load.unknown import UnknownNames

KINDS = ("sample", "trip_start", "trip_end", "charge_start", "charge_end", "fault", "heartbeat")
KIND_INDEX = {kind: index for index, kind in enumerate(KINDS)}


class Sparse(NamedTuple):
    """Values that few events have. `event` is the index of the event, `name` an index into `names`, `value` an Arrow
    array; one entry for each value, in the order of events."""

    event: NDArray[np.int64]
    name: NDArray[np.int32]
    value: pa.Array
    names: list[str]


NO_NUMBERS = Sparse(np.empty(0, np.int64), np.empty(0, np.int32), pa.array([], pa.float64()), [])
NO_TEXTS = NO_NUMBERS._replace(value=pa.array([], pa.string()))


class Readings(NamedTuple):
    """Arrays of length events: `at` (ms after sent_at), `kind` (index into KINDS), `counts` (readings of the event),
    `unknown` (whether it has an unknown name), `dropped` (values under names that are not kept). Of length readings:
    `ids`, `values`."""

    at: NDArray[np.int64]
    kind: NDArray[np.int8]
    counts: NDArray[np.int64]
    unknown: NDArray[np.bool_]
    dropped: NDArray[np.int64]
    ids: NDArray[np.uint16]
    values: NDArray[np.float64]
    unknown_values: Sparse
    texts: Sparse


class Numbering(dict[int | str, int]):
    """The number of a signal by path or number; 0 for what the catalogue does not have."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.update(catalogue.numbers)
        self.update((number, number) for number in catalogue.paths)

    def __missing__(self, key: int | str) -> int:
        return 0


class Collector:
    """Takes bodies one after another; `finish` gives their readings in the same order.

    What a body holds is copied into flat lists at once: bodies that waited for their turn kept the garbage collector
    busy, 1.3 us an event.
    """

    def __init__(self, catalogue: Catalogue, numbering: Numbering, names: UnknownNames) -> None:
        self._catalogue = catalogue
        self._admit = names.admit
        self._number_of = numbering.__getitem__
        self._first: list[int] = []  # index of the first event of each message, and its tenant beside it
        self._tenant: list[str] = []
        self._flushed = 0  # events that are arrays already; the lists have those behind them
        self._pieces: list[tuple[NDArray[Any], ...]] = []  # at, kind, counts, ids, values
        self._at: list[int] = []
        self._kind: list[str] = []
        self._counts: list[int] = []
        self._keys: list[int | str] = []
        self._values: list[float] = []
        self._written: list[tuple[int, int | str, str]] = []  # event, key and text of each text
        self._unknown_values = _SparseParts(pa.float64())
        self._texts = _SparseParts(pa.string())
        self._named_unknown: list[NDArray[np.int64]] = []
        self._dropped: list[NDArray[np.int64]] = []

    def add(self, tenant: str, body: Body) -> int:
        """Takes one body; returns the number of its events."""
        self._first.append(self._flushed + len(self._at))
        self._tenant.append(tenant)
        if isinstance(body, Columns):
            self._flush()
            self._add_columns(tenant, body)
            return body.n
        for event in body.events:
            signals = event.signals
            self._at.append(event.at)
            self._kind.append(event.kind)
            self._counts.append(len(signals))
            self._keys.extend(signals)
            self._values.extend(signals.values())
            if event.texts:
                index = self._flushed + len(self._at) - 1
                self._written += [(index, key, text) for key, text in event.texts.items()]
        return len(body.events)

    def finish(self) -> Readings:
        self._flush()
        empty: list[tuple[NDArray[Any], ...]] = [tuple(np.empty(0, dtype) for dtype in ("i8", "i1", "i8", "u2", "f8"))]
        at, kind, counts, ids, values = (
            np.concatenate(column) for column in zip(*(self._pieces or empty), strict=True)
        )
        unknown = np.zeros(self._flushed, dtype=np.bool_)
        for events in self._named_unknown:
            unknown[events] = True
        dropped = np.zeros(self._flushed, dtype=np.int64)
        for events in self._dropped:
            np.add.at(dropped, events, 1)
        return Readings(
            at, kind, counts, unknown, dropped, ids, values, self._unknown_values.finish(), self._texts.finish()
        )

    def _flush(self) -> None:
        """The lists become arrays."""
        count, total = len(self._at), len(self._keys)
        if not count:
            return
        at = np.array(self._at, np.int64)
        kind = np.fromiter(map(KIND_INDEX.__getitem__, self._kind), np.int8, count)
        counts = np.array(self._counts, np.int64)
        ids = np.fromiter(map(self._number_of, self._keys), np.uint16, total)
        values = np.array(self._values, np.float64)
        if not ids.all():
            ids, values, counts = self._set_unknown_aside(ids, values, counts)
        self._pieces.append((at, kind, counts, ids, values))
        self._take_texts()
        self._flushed += count
        for column in (self._at, self._kind, self._counts, self._keys, self._values, self._written):
            column.clear()

    def _set_unknown_aside(
        self, ids: NDArray[np.uint16], values: NDArray[np.float64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint16], NDArray[np.float64], NDArray[np.int64]]:
        known = ids != 0
        positions = np.flatnonzero(~known)
        owners = np.searchsorted(counts.cumsum(), positions, side="right")
        names = [_name(self._keys[position]) for position in positions.tolist()]
        self._take_unknown(owners + self._flushed, names, self._unknown_values, pa.array(values[positions]))
        return ids[known], values[known], counts - np.bincount(owners, minlength=len(counts))

    def _take_texts(self) -> None:
        for known in (True, False):
            some = [entry for entry in self._written if bool(self._number_of(entry[1])) is known]
            owners = np.array([event for event, _, _ in some], np.int64)
            texts = pa.array([text for _, _, text in some], pa.string())
            if known:
                self._texts.add(owners, [self._catalogue.paths[self._number_of(key)] for _, key, _ in some], texts)
            else:
                self._take_unknown(owners, [_name(key) for _, key, _ in some], self._texts, texts)

    def _take_unknown(self, events: NDArray[np.int64], names: list[str], into: _SparseParts, values: pa.Array) -> None:
        tenants = (self._tenant[bisect_right(self._first, event) - 1] for event in events.tolist())
        kept = np.fromiter(map(self._admit, tenants, names), np.bool_, len(names))
        into.add(
            events[kept], [name for name, keep in zip(names, kept.tolist(), strict=True) if keep], values.filter(kept)
        )
        self._named_unknown.append(events)
        self._dropped.append(events[~kept])

    def _add_columns(self, tenant: str, body: Columns) -> None:
        n, numbers = body.n, np.array(list(body.columns), dtype=np.uint16)
        matrix = np.empty((n, len(numbers)), dtype=np.float64)
        for place, column in enumerate(body.columns.values()):
            matrix[:, place] = np.frombuffer(column.data, dtype=DTYPE_OF[column.type])
        present = ~np.isnan(matrix)
        known = self._catalogue.known[numbers]
        for place in np.flatnonzero(~known).tolist():
            self._take_unknown_column(tenant, int(numbers[place]), matrix[:, place], present[:, place])
        present &= known
        ids = np.broadcast_to(numbers, present.shape)[present]
        at = np.frombuffer(body.at, dtype="<i4").astype(np.int64)
        kind = np.full(n, KIND_INDEX[body.kind], dtype=np.int8)
        self._pieces.append((at, kind, present.sum(axis=1), ids, matrix[present]))
        self._flushed += n

    def _take_unknown_column(
        self, tenant: str, number: int, values: NDArray[np.float64], present: NDArray[np.bool_]
    ) -> None:
        events = np.flatnonzero(present) + self._flushed
        self._named_unknown.append(events)
        if self._admit(tenant, _name(number)):
            self._unknown_values.add(events, [_name(number)] * len(events), pa.array(values[present]))
        else:
            self._dropped.append(events)


class _SparseParts:
    """Collects sparse values in any order."""

    def __init__(self, kind: pa.DataType) -> None:
        self._codes: dict[str, int] = {}
        self._events: list[NDArray[np.int64]] = []
        self._names: list[NDArray[np.int32]] = []
        self._values: list[pa.Array] = [pa.array([], type=kind)]

    def add(self, events: NDArray[np.int64], names: list[str], values: pa.Array) -> None:
        codes = self._codes
        for name in dict.fromkeys(names):
            codes.setdefault(name, len(codes))
        self._events.append(events)
        self._names.append(np.fromiter(map(codes.__getitem__, names), np.int32, len(names)))
        self._values.append(values)

    def finish(self) -> Sparse:
        events = np.concatenate([np.empty(0, np.int64), *self._events])
        names = np.concatenate([np.empty(0, np.int32), *self._names])
        order = np.argsort(events, kind="stable")
        return Sparse(
            events[order], names[order], pa.concat_arrays(self._values).take(pa.array(order)), list(self._codes)
        )


def _name(key: int | str) -> str:
    """How a signal that is not in the catalogue is called: by its name, or by `#` and its number. A name that begins
    with `#` gets another one, so that no two keys of an event are the same."""
    return key if isinstance(key, str) and key[:1] != "#" else f"#{key}"
