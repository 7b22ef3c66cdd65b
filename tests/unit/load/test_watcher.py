"""What the watch tells, and when it cannot; what it does after a fault, and how that shows."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from fleetgate.catalogue import catalogue
from fleetgate.clock import SystemClock
from fleetgate.control.watchturns import Turn
from fleetgate.errors import ClickHouseAway
from fleetgate.load import steady
from fleetgate.load.alerts import Alerts
from fleetgate.load.counts import Counts
from fleetgate.load.steady import rounds
from fleetgate.load.watch import watcher
from fleetgate.load.watch.changes import Closing, Opening
from fleetgate.load.watch.cohorts import Cohort
from fleetgate.load.watch.kinds import Series
from fleetgate.load.watch.turn import Turns
from fleetgate.load.watch.watcher import Watcher


class Standing(SystemClock):
    """Stands, and is moved."""

    at_ms = 1_767_225_600_000

    def now_ms(self) -> int:
        return self.at_ms


class Told:
    """Alerts of a ClickHouse that takes none at first."""

    def __init__(self) -> None:
        self.away, self.closed = True, list[str]()

    def newest_ms(self, _key: str) -> int:
        return 0

    def close(self, key: str, at_ms: int) -> None:
        if self.away:
            raise ClickHouseAway("for a while")
        self.closed.append(key)


def alone() -> Turns:
    """No other load is there."""
    return Turns(lambda: "spool", lambda: 1, lambda spool, until_ms, _: [Turn(spool, 1, until_ms, True)])


class Stepped(Watcher):
    """Its looks fail as they are told to, and are counted."""

    def __init__(self, counts: Counts, failing: list[Exception]) -> None:
        unused: Any = None
        super().__init__(unused, unused, unused, catalogue(), counts, SystemClock(), alone())
        self.failing, self.looked = failing, threading.Event()

    def look_until(self, until_ms: int) -> None:
        if self.failing:
            raise self.failing.pop(0)
        self.looked.set()


def test_a_fault_that_nobody_foresaw_ends_no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told by its name and place, and the watch starts again."""
    monkeypatch.setattr(watcher, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(steady, "PAUSE_SECONDS", 0.001)
    watched = Stepped(Counts(CollectorRegistry()), [KeyError("a secret"), ValueError("another")])
    with capture_logs() as logs, watched:
        assert watched.looked.wait(10)
    said = [line["error"].split(" at ") for line in logs if line["event"] == "unforeseen" and line["thread"] == "watch"]
    assert [(kind, where.split(":")[0]) for kind, where in said] == [
        ("KeyError", "test_watcher.py"),
        ("ValueError", "test_watcher.py"),
    ]


def test_a_watch_that_stands_still_shows() -> None:
    """How far it is behind is asked of it when somebody looks, and not left over from its last look."""
    registry, clock = CollectorRegistry(), Standing()
    unused: Any = None
    Watcher(unused, unused, unused, catalogue(), Counts(registry), clock, alone())
    behind = [registry.get_sample_value("fleetgate_watch_behind_seconds")]
    clock.at_ms += 3_600_000
    behind.append(registry.get_sample_value("fleetgate_watch_behind_seconds"))
    assert behind == [0.0, 3600.0]


def test_a_round_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it end its thread unheard."""
    monkeypatch.setattr(steady, "PAUSE_SECONDS", 0.001)
    made, again = list[int](), threading.Event()

    def make() -> None:
        made.append(1)
        if len(made) == 1:
            raise ValueError("nobody foresaw this")
        again.set()

    with capture_logs() as logs, rounds("audit", make, 0.001):
        assert again.wait(10)
    assert [(line["thread"], line["error"].split(":")[0]) for line in logs] == [
        ("audit", "ValueError at test_watcher.py")
    ]


def test_what_cannot_be_told_is_told_later_and_once() -> None:
    """ClickHouse may answer a look and refuse an insert: the change is noticed only once, so it must be kept."""
    unused: Any = None
    alerts: Any = Told()
    one = Watcher(unused, unused, alerts, catalogue(), Counts(CollectorRegistry()), SystemClock(), alone())
    series = [Series("silent", Cohort("acme", version), "") for version in ("1", "2")]
    one.untold.extend((Closing(each), 1) for each in series)
    with pytest.raises(ClickHouseAway):
        one.tell()
    alerts.away = False
    one.tell()
    one.tell()
    assert alerts.closed == [each.key for each in series]


class Taking:
    """A ClickHouse that has no alerts, and takes all."""

    def raw(self, *_: object) -> bytes:
        return b""

    def insert(self, *_: object) -> None:
        pass


def test_a_clock_that_is_set_back_loses_neither_an_end_nor_the_next_beginning() -> None:
    """What the watch says of an alert comes after what was said of it before, whatever the clock shows by then."""
    clickhouse: Any = Taking()
    told = list[str]()
    counts, clock = Counts(CollectorRegistry()), Standing()
    alerts = Alerts(clickhouse, counts, clock, [lambda event: told.append(str(event["event"]))])
    one = Watcher(clickhouse, clickhouse, alerts, catalogue(), counts, clock, alone())
    series = Series("silent", Cohort("acme"), "")
    opening = Opening(series, 0.0, 0.9, 0.01, 40, clock.at_ms)
    for change, minutes in ((opening, 0), (Closing(series), -58), (opening, -30), (Closing(series), -20)):
        one.untold.append((change, clock.at_ms + minutes * 60_000))
        one.tell()
    assert told == ["alert.opened", "alert.closed"] * 2
