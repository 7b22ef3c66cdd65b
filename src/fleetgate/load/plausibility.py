"""Which readings cannot be true, by the catalogue's bounds: a compromised unit sends well-signed lies.

Decides for each reading; a flagged one is stored like every other, named in `implausible`, and kept out of the rollups.
Compared are values and, within a message, the change from the signal's reading before. Across messages and across the
fleet the watch compares.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fleetgate.catalogue import Catalogue

SHORTEST_STEP_S = 0.1
"""Two readings closer than this are treated as this far apart: clocks of control units tick in tens of ms, and two
values that were rounded to the same instant are no infinite rate."""


def implausible(
    ids: NDArray[np.uint16],
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    event_ms: NDArray[np.int64],
    message: NDArray[np.int64],
    catalogue: Catalogue,
) -> NDArray[np.bool_]:
    """Whether each reading is implausible.

    `ids` and `values` have one entry for each reading; `counts` (readings of the event), `event_ms` (its time) and
    `message` (index of its message, ascending) one for each event.
    """
    inside = (values >= catalogue.minimum[ids]) & (values <= catalogue.maximum[ids]) & np.isfinite(values)
    return ~inside | _changes_too_fast(ids, values, counts, event_ms, message, catalogue.rate)


def implausible_alike(
    ids: NDArray[np.uint16], values: NDArray[np.float64], event_ms: NDArray[np.int64], catalogue: Catalogue
) -> NDArray[np.bool_]:
    """The same for messages whose events all have the signals `ids`, without a look-up for each reading: 6 ns instead
    of 24. `values` are finite, of shape (messages, events, signals), like the answer; `event_ms` (messages, events)."""
    wrong = (values < catalogue.minimum[ids]) | (values > catalogue.maximum[ids])
    rates = catalogue.rate[ids]
    rated = np.flatnonzero(np.isfinite(rates))
    if len(rated):
        seconds = np.maximum(np.abs(np.diff(event_ms, axis=1)) / 1000, SHORTEST_STEP_S)
        with np.errstate(over="ignore"):  # as below
            change = np.abs(np.diff(values[:, :, rated], axis=1))
        wrong[:, 1:, rated] |= change > rates[rated] * seconds[:, :, None]
    return wrong


def _changes_too_fast(
    ids: NDArray[np.uint16],
    values: NDArray[np.float64],
    counts: NDArray[np.int64],
    event_ms: NDArray[np.int64],
    message: NDArray[np.int64],
    rates: NDArray[np.float64],
) -> NDArray[np.bool_]:
    flagged = np.zeros(len(ids), dtype=np.bool_)
    if np.diff(message).all():  # one event a message: nothing to compare with
        return flagged
    event = np.repeat(np.arange(len(counts)), counts)
    later, earlier = _pairs(ids, counts, event, message, np.flatnonzero(np.isfinite(rates)[ids]))
    seconds = np.abs(event_ms[event[later]] - event_ms[event[earlier]]) / 1000
    with np.errstate(over="ignore"):  # the difference of two f64 may be infinite, and then it is too large
        change = np.abs(values[later] - values[earlier])
    flagged[later] = change > rates[ids[later]] * np.maximum(seconds, SHORTEST_STEP_S)
    return flagged


def _pairs(
    ids: NDArray[np.uint16],
    counts: NDArray[np.int64],
    event: NDArray[np.int64],
    message: NDArray[np.int64],
    wanted: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(later, earlier) reading of each two neighbours of one signal in one message, among the `wanted` readings."""
    first = np.diff(message, prepend=-1) != 0
    repeats = _repeats_event_before(ids, counts, event) & ~first
    irregular = np.zeros(int(message[-1]) + 1 if len(message) else 0, dtype=np.bool_)
    irregular[message[~repeats & ~first]] = True
    scattered = irregular[message[event[wanted]]]
    # A unit that sends the same signals in each event has the reading before exactly one event's length back.
    later = wanted[~scattered]
    later = later[repeats[event[later]]]
    earlier = later - counts[event[later]]
    # Where events differ in their signals, sorting by signal finds it: `rest` ascends, so that within a signal messages
    # stay in order. A stable sort of u16 is a radix sort.
    rest = wanted[scattered]
    rest = rest[np.argsort(ids[rest], kind="stable")]
    owner = message[event[rest]]
    same = np.flatnonzero((ids[rest[1:]] == ids[rest[:-1]]) & (owner[1:] == owner[:-1]))
    return np.concatenate([later, rest[same + 1]]), np.concatenate([earlier, rest[same]])


def _repeats_event_before(
    ids: NDArray[np.uint16], counts: NDArray[np.int64], event: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each event names the same signals in the same order as the event before it."""
    same_length: NDArray[np.bool_] = np.diff(counts, prepend=-1) == 0
    back = np.arange(len(ids)) - counts[event]
    differs = same_length[event] & (ids[back] != ids)  # `back` leaves the array only where the length differs
    same = same_length.copy()
    same[event[differs]] = False
    return same
