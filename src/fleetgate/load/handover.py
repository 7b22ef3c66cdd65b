"""Who gets a segment besides its tables: one place for the loader to know them by.

Before its rows, control gets the spool, the transitions and the alerts, and whoever is told of alerts gets them. With
its rows goes what values say about single devices; behind them, whose events are held, and how far load has come. When
each is told, and what is tried again, is decided by the loader.
"""

from __future__ import annotations

from typing import NamedTuple

from fleetgate.load.alerts import Alerts
from fleetgate.load.progress import Progress
from fleetgate.load.release import Releases
from fleetgate.load.suspects import Suspects
from fleetgate.load.transitions import Transitions


class Handover(NamedTuple):
    transitions: Transitions
    alerts: Alerts
    suspects: Suspects
    progress: Progress
    releases: Releases
