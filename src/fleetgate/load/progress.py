"""How far load has come, told to control: an edge that starts knows by it a replaced disk from a new gate's.

Decides when. A spool is on record before the first of its segments is loaded, so nothing is in ClickHouse of a spool
that control never heard of. Its position follows about once a second, in rounds: telemetry does not wait for it.
With it goes the newest time of receipt that was loaded: an edge on an empty disk whose clock is behind would else take
again what is in ClickHouse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fleetgate import log
from fleetgate.errors import ControlAway, FleetgateError

TELL_SECONDS = 1.0

Begin = Callable[[str, Sequence[str]], None]
"""Puts a spool on record: (identity in hex, those it had before). Raises ControlAway."""

Note = Callable[[str, int, int], None]
"""(identity in hex, last segment that is loaded, newest time of receipt in Unix ms). Raises ControlAway."""


class Progress:
    """For two threads: one loads, the other makes the rounds."""

    def __init__(self, begin: Begin, note: Note) -> None:
        self._begin = begin
        self._note = note
        self._reached: tuple[str, int, int] | None = None
        self._told: tuple[str, int, int] | None = None

    def begin(self, spool: str, former: Sequence[str]) -> None:
        """Before the first segment of a spool is loaded. Raises ControlAway."""
        self._begin(spool, former)

    def reached(self, spool: str, segment: int, newest_received_ms: int) -> None:
        """The cursor stands here, durably, and nothing that this process loaded was received later."""
        self._reached = (spool, segment, newest_received_ms)

    def round(self) -> None:
        """Tells the last position, once."""
        reached = self._reached
        if reached is None or reached == self._told:
            return
        try:
            self._note(*reached)
        except ControlAway:
            return  # a later position says more
        except FleetgateError as error:
            log.get("load").error("progress_not_told", error=str(error))
            return
        self._told = reached
