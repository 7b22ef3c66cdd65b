"""Hands the transitions of segments to control, and the alerts of edges, before and independent of ClickHouse.

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
from fleetgate.spool.files import segment_files
from fleetgate.spool.format import AlertRecord, DamagedError, TransitionRecord
from fleetgate.spool.identity import read_identity
from fleetgate.spool.places import misplaced
from fleetgate.spool.reader import Segment, read_segment

Apply = Callable[[str, int, int, TransitionRecord], str]
"""Hands one transition to control: (spool, segment, offset, record) -> what became of it. Raises ControlAway."""

NoteAlert = Callable[[AlertRecord], object]
"""Hands one alert to control, which takes each word of it once. Raises ControlAway."""


class Transitions:
    """Of the spool at `spool`. Used by one thread."""

    def __init__(self, spool: Path, apply: Apply, note_alert: NoteAlert, counts: Counts, stop: threading.Event) -> None:
        self._spool = spool
        self._apply = apply
        self._note_alert = note_alert
        self._counts = counts
        self._stop = stop
        self._through = ("", 0)  # those of this spool's segments up to this one were handed on

    def hand_on(self, segment: Segment) -> None:
        """Transitions and alerts of one segment. Raises ControlAway."""
        spool, number = segment.header.spool.hex(), segment.header.segment
        for offset, record in segment.transitions:
            outcome = self._apply(spool, number, offset, record)
            self._counts.transitions.labels(outcome).inc()
        for _, alert in segment.alerts:
            self._note_alert(alert)
        if spool != self._through[0] or number > self._through[1]:
            self._through = (spool, number)

    def hand_on_waiting(self) -> None:
        """Those of all segments behind the cursor, while ClickHouse is away."""
        identity, cursor = read_identity(self._spool), read_cursor(self._spool)
        if identity is None:
            return
        after = cursor.segment if cursor is not None and cursor.spool == identity.spool else 0
        if self._through[0] == identity.spool:
            after = max(after, self._through[1])
        for file in segment_files(self._spool):
            if file.state != "sealed" or file.number <= after or self._stop.is_set():
                continue
            try:
                segment = read_segment(file.path)
                if not misplaced(file, segment.header, identity):
                    self.hand_on(segment)
            except (DamagedError, OSError):
                continue  # load tells of it when its turn comes
            except ControlAway:
                return  # its turn comes when it is loaded, which insists
