"""Hands the transitions of segments to control, before and independent of ClickHouse.

A quarantine does not wait for a database of telemetry: while that is away, the segments that wait are looked through
for transitions all the same. Control applies each once (by spool, segment, offset), so a repetition is harmless.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from fleetgate.errors import ControlAway
from fleetgate.load.counts import Counts
from fleetgate.spool.cursor import read_cursor
from fleetgate.spool.format import DamagedError, TransitionRecord
from fleetgate.spool.reader import Segment, read_segment, segment_paths

Apply = Callable[[str, int, int, TransitionRecord], str]
"""Hands one transition to control: (spool, segment, offset, record) -> what became of it. Raises ControlAway."""


class Transitions:
    """Of the spool at `spool`. Used by one thread."""

    def __init__(self, spool: Path, apply: Apply, counts: Counts, stop: threading.Event) -> None:
        self._spool = spool
        self._apply = apply
        self._counts = counts
        self._stop = stop
        self._through = 0  # those of segments up to this one were handed on

    def hand_on(self, segment: Segment) -> None:
        """Those of one segment. Raises ControlAway."""
        spool, number = segment.header.spool.hex(), segment.header.segment
        for offset, record in segment.transitions:
            outcome = self._apply(spool, number, offset, record)
            self._counts.transitions.labels(outcome).inc()
        self._through = max(self._through, number)

    def hand_on_waiting(self) -> None:
        """Those of all segments behind the cursor, while ClickHouse is away."""
        cursor = read_cursor(self._spool)
        after = max(self._through, cursor.segment if cursor is not None else 0)
        for number, path in segment_paths(self._spool / "segments"):
            if number > after and not self._stop.is_set():
                try:
                    self.hand_on(read_segment(path))
                except (DamagedError, ControlAway, FileNotFoundError):
                    return  # its turn comes when it is loaded, which insists
