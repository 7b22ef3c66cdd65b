"""What the values of single devices say about them: too many readings that cannot be true, ways nobody can have made.

Decides what is suspicious of one device, by its pulses of this segment and where it was before; an episode of it is
told to control at most once in ten seconds for each device and signal, and not while those that were told are as much
of a score as their signal can make: then once in a tenth of its half-life. What a person has decided on since counts
for nothing, here as at the edge. What an episode weighs is decided by the edge's policy. A bad sensor and a spoofed
receiver are suspicious too: what many vehicles show at once is the watch's to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fleetgate import log
from fleetgate.control.suspicions import KEPT_MS, NOTED_AT_ONCE, Suspicion
from fleetgate.errors import ControlAway
from fleetgate.load.columns import SegmentRows
from fleetgate.load.travel import LATITUDE, LONGITUDE, jumps, metres
from fleetgate.scoring import Signal
from fleetgate.spool.reader import Segment

LEAST_IMPLAUSIBLE = 10
SHARE_IMPLAUSIBLE = 0.2
"""Of a device's readings in one segment: one bad sensor of eight stays below it, two do not."""

EVERY_MS = 10_000
ENOUGH_SHARE = 0.5**0.1
"""Of the most that a signal can make of a score: while that is left, another episode adds nothing. A car with a broken
sensor is 240 rows of control in a day, and not 8,640; ten thousand with one bad release 2.4 million of 300 bytes."""

MOST_DEVICES = 200_000
"""That are remembered, 20 MB of positions; then all are forgotten but those of this segment."""

Note = Callable[[str, int, Sequence[Suspicion]], object]
"""Tells control: (spool, segment, what was found). Raises ControlAway."""

Device = tuple[str, str]

DecidedSince = Callable[[int], Mapping[Device, int]]
"""When a person last decided on each device (Unix ms), of those with a decision since then. Raises ControlAway."""


class Suspects:
    """Used by one thread."""

    def __init__(self, note: Note, decided_since: DecidedSince, signals: Mapping[str, Signal]) -> None:
        """`signals` as the policy has them."""
        self._note = note
        self._decided_since = decided_since
        self._decided: Mapping[Device, int] = {}
        self._asked_ms = 0  # for decisions, by the time of receipt
        self._signals = signals
        self._told: dict[tuple[Device, str], tuple[float, int]] = {}  # the score that was told, and when (Unix ms)
        self._tracks = Tracks()
        self._waiting: list[Suspicion] = []
        self._log = log.get("load")

    def look(self, segment: Segment, rows: SegmentRows) -> None:
        """Notes what is found. Control that is away gets it with a later segment."""
        edges = {(peer.tenant, peer.device_id): peer.edge_id for peer in segment.peers.values()}
        for part in rows.rows:
            if part.table == "pulses":
                devices = list(
                    zip(*(part.rows.column(name).to_pylist() for name in ("tenant", "device_id")), strict=True)
                )
                self._waiting += self._of_implausible(part.rows, devices, edges)
                self._waiting += self._of_travel(part.rows, devices, edges)
        self._waiting = self._waiting[-NOTED_AT_ONCE:]
        if self._waiting:
            try:
                self._note(segment.header.spool.hex(), segment.header.segment, self._waiting)
            except ControlAway as error:
                self._log.warning("suspicions_not_told", error=str(error))
                return
            self._waiting = []

    def _of_implausible(self, pulses: pa.Table, devices: list[Device], edges: dict[Device, str]) -> Iterator[Suspicion]:
        readings, implausible = (pulses.column(name).to_numpy() for name in ("readings", "implausible"))
        received = milliseconds(pulses, "received_at")
        wrong = (implausible >= LEAST_IMPLAUSIBLE) & (implausible >= SHARE_IMPLAUSIBLE * readings)
        for row in np.flatnonzero(wrong).tolist():
            if self._is_due(devices[row], "implausible_data", int(received[row])):
                detail = {"implausible": int(implausible[row]), "readings": int(readings[row])}
                device = devices[row]
                yield Suspicion(*device, edges[device], "implausible_data", 1, int(received[row]), detail)

    def _of_travel(self, pulses: pa.Table, devices: list[Device], edges: dict[Device, str]) -> Iterator[Suspicion]:
        received = milliseconds(pulses, "received_at")
        for row, far_m, seconds in self._tracks.take(devices, *positions(pulses), milliseconds(pulses, "event_time")):
            if self._is_due(devices[row], "impossible_travel", int(received[row])):
                detail = {"kilometres": round(far_m / 1000, 1), "seconds": round(seconds, 1)}
                device = devices[row]
                yield Suspicion(*device, edges[device], "impossible_travel", 1, int(received[row]), detail)

    def _is_due(self, device: Device, signal: str, at_ms: int) -> bool:
        score, told_ms = self._told.get((device, signal), (0.0, 0))
        if abs(at_ms - told_ms) < EVERY_MS:
            return False
        decided_ms = self._decisions(at_ms).get(device, 0)
        if at_ms <= decided_ms:
            return False
        if told_ms <= decided_ms:
            score = 0.0
        what = self._signals[signal]
        left = score * 0.5 ** (max(0, at_ms - told_ms) / 1000 / what.half_life_seconds)
        if not what.weight or left >= ENOUGH_SHARE * what.at_most:
            return False
        if len(self._told) >= MOST_DEVICES:
            self._told.clear()
        self._told[device, signal] = (min(left + what.weight, what.at_most), at_ms)
        return True

    def _decisions(self, at_ms: int) -> Mapping[Device, int]:
        """Those of the day before, as of a moment ago, or of when control was last there."""
        if abs(at_ms - self._asked_ms) >= EVERY_MS:
            self._asked_ms = at_ms
            with suppress(ControlAway):
                self._decided = self._decided_since(at_ms - KEPT_MS)
        return self._decided


class Tracks:
    """Where each device was last."""

    def __init__(self) -> None:
        self._places: dict[Device, int] = {}
        self._last = np.full((3, 64), np.nan)  # latitude, longitude, Unix ms by the device's clock

    def take(
        self,
        devices: Sequence[Device],
        rows: NDArray[np.int64],
        latitude: NDArray[np.float64],
        longitude: NDArray[np.float64],
        event_ms: NDArray[np.int64],
    ) -> list[tuple[int, float, float]]:
        """(row, metres, seconds) of each impossible way to a row from where its device was before.

        `rows` are those with a position, indexes into `devices` and `event_ms`.
        """
        if len(self._places) + len(rows) > MOST_DEVICES:
            self._places.clear()
            self._last = np.full((3, 64), np.nan)
        places = np.array([self._places.setdefault(devices[row], len(self._places)) for row in rows.tolist()], np.int64)
        while len(self._places) > self._last.shape[1]:
            self._last = np.concatenate([self._last, np.full_like(self._last, np.nan)], axis=1)
        now = np.stack([latitude, longitude, event_ms[rows].astype(np.float64)])
        order = np.lexsort((now[2], places))
        before = self._last[:, places[order]]
        same = np.flatnonzero(np.diff(places[order]) == 0) + 1  # the row before is of the same device
        before[:, same] = now[:, order[same - 1]]
        found = np.flatnonzero(jumps(*before, *now[:, order]))
        self._last[:, places[order]] = now[:, order]  # of several the last
        far = metres(before[0], before[1], *now[:2, order])
        seconds = np.abs(now[2, order] - before[2]) / 1000
        return [(int(rows[order[i]]), float(far[i]), float(seconds[i])) for i in found.tolist()]


def positions(pulses: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows that have a position, their latitudes and longitudes."""
    ids, values = (pulses.column(name).combine_chunks() for name in ("signal_ids", "signal_values"))
    owner = np.repeat(np.arange(len(ids)), np.diff(ids.offsets.to_numpy()))
    number, value = ids.flatten().to_numpy(), values.flatten().to_numpy()
    found: dict[int, Any] = {signal: np.full(len(ids), np.nan) for signal in (LATITUDE, LONGITUDE)}
    for signal, column in found.items():
        at = np.flatnonzero(number == signal)
        column[owner[at]] = value[at]
    rows = np.flatnonzero(~np.isnan(found[LATITUDE]) & ~np.isnan(found[LONGITUDE]))
    return rows, found[LATITUDE][rows], found[LONGITUDE][rows]


def milliseconds(pulses: pa.Table, name: str) -> NDArray[np.int64]:
    found: NDArray[np.int64] = pulses.column(name).cast(pa.int64()).to_numpy()
    return found
