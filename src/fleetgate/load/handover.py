"""What a segment gives to others than its tables: all of it from here, so that the loader knows one place.

Before its rows, control gets the spool, the transitions and the alerts, and whoever is told of alerts gets them. With
its rows goes what values say about single devices; behind them, whose events are held, and how far load has come.
Decides who is told of what; when, and what is tried again, is decided by the loader.
"""

from __future__ import annotations

from fleetgate.load.alerts import Alerts
from fleetgate.load.columns import SegmentRows, held_devices
from fleetgate.load.edgealerts import raise_alerts
from fleetgate.load.progress import Progress
from fleetgate.load.release import Releases
from fleetgate.load.suspects import Suspects
from fleetgate.load.transitions import Transitions
from fleetgate.spool.identity import Identity
from fleetgate.spool.reader import Segment


class Handover:
    """Used by one thread, the loader's."""

    def __init__(
        self, transitions: Transitions, alerts: Alerts, suspects: Suspects, progress: Progress, releases: Releases
    ) -> None:
        self._transitions = transitions
        self._alerts = alerts
        self._suspects = suspects
        self._progress = progress
        self._releases = releases

    def begin(self, identity: Identity) -> None:
        """Before the first segment of a spool. Raises ControlAway."""
        self._progress.begin(identity.spool, identity.former)

    def tell_control(self, segment: Segment) -> None:
        """Its transitions and alerts. Raises ControlAway."""
        self._transitions.hand_on(segment)

    def raise_alerts(self, segment: Segment) -> None:
        """Raises ClickHouseAway."""
        raise_alerts(self._alerts, segment)

    def suspect(self, segment: Segment, rows: SegmentRows) -> None:
        """By its values. What control does not take now it gets with a later segment."""
        self._suspects.look(segment, rows)

    def stored(self, segment: Segment) -> None:
        """Its rows are in ClickHouse."""
        self._releases.held(held_devices(segment))

    def reached(self, spool: str, segment: int, newest_received_ms: int) -> None:
        """The cursor stands here, durably."""
        self._progress.reached(spool, segment, newest_received_ms)

    def release(self, *, busy: bool) -> bool:
        """Between two segments: a piece of what was held; False when nothing waits for that."""
        return self._releases.step(busy=busy)
