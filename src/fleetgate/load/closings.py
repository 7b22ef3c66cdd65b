"""Alerts of edges that a person has closed: from control to the alerts of everybody.

A closing of the edge itself comes with its spool, as its opening did; but that edge may be gone. Decides how far back
control is asked. What may be closed by a person is decided by `control.edgealerts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fleetgate import log
from fleetgate.clock import Clock
from fleetgate.errors import ClickHouseAway, ControlAway
from fleetgate.load.alerts import REMEMBER_MS, Alerts
from fleetgate.load.clickhouse import Refused

_log = log.get("load")

ClosingsSince = Callable[[int], Iterable[tuple[str, int]]]
"""(key, Unix ms) of what was closed from then on (Unix ms). Raises ControlAway."""


class Closings:
    """What is told already is not told again, so each round asks for all that may be of interest: they are few."""

    def __init__(self, alerts: Alerts, closings_since: ClosingsSince, clock: Clock) -> None:
        self._alerts = alerts
        self._closings_since = closings_since
        self._clock = clock

    def round(self) -> None:
        """Raises nothing: the next one does the same."""
        try:
            for key, at_ms in self._closings_since(self._clock.now_ms() - REMEMBER_MS):
                self._alerts.close(key, at_ms)
        except (ControlAway, ClickHouseAway, Refused) as error:
            _log.warning("closings_unknown", error=str(error))
