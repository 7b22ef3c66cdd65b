"""What the watch tells, and when it cannot."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fleetgate.catalogue import catalogue
from fleetgate.clock import SystemClock
from fleetgate.errors import ClickHouseAway
from fleetgate.load.counts import Counts
from fleetgate.load.watch.changes import Closing, Series
from fleetgate.load.watch.cohorts import Cohort
from fleetgate.load.watch.watcher import Watcher


class Told:
    """Alerts of a ClickHouse that takes none at first."""

    def __init__(self) -> None:
        self.away, self.closed = True, list[str]()

    def close(self, key: str, at_ms: int) -> None:
        if self.away:
            raise ClickHouseAway("for a while")
        self.closed.append(key)


def test_what_cannot_be_told_is_told_later_and_once() -> None:
    """ClickHouse may answer a look and refuse an insert: the change is noticed only once, so it must be kept."""
    unused: Any = None
    alerts: Any = Told()
    watcher = Watcher(unused, unused, alerts, catalogue(), Counts(CollectorRegistry()), SystemClock(), lambda: None)
    series = [Series("silent", Cohort("acme", version), "") for version in ("1", "2")]
    watcher.untold.extend(map(Closing, series))
    with pytest.raises(ClickHouseAway):
        watcher.tell()
    alerts.away = False
    watcher.tell()
    watcher.tell()
    assert alerts.closed == [one.key for one in series]
