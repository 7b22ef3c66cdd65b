"""Alerts open once and close once, whoever says it, how often and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from fleetgate.clock import SystemClock
from fleetgate.load.alerts import Alert, Alerts
from fleetgate.load.counts import Counts

AT = SystemClock().now_ms() - 60_000


class Told:
    """Alerts as a new process has them, and what they told."""

    def __init__(self, clickhouse: Any) -> None:
        self.registry = CollectorRegistry()
        self.events: list[dict[str, Any]] = []
        self.alerts = Alerts(
            clickhouse, Counts(self.registry), SystemClock(), [lambda event: self.events.append(dict(event))]
        )

    def metric(self, kind: str) -> float | None:
        return self.registry.get_sample_value("fleetgate_alerts_open", {"kind": kind})


@pytest.fixture
def start(bench: Any) -> Callable[[], Told]:
    return lambda: Told(bench.clickhouse)


def alert(bench: Any, at_ms: int = AT, **other: Any) -> Alert:
    name = bench.vehicle("trouble")
    facts = {"kind": name, "tenant": "acme", "cohort": "software 2", "signal": "Vehicle.Speed", "before": 52.5}
    return Alert(key=name, opened_at_ms=at_ms, **{**facts, "after": 32.75, "vehicles": 41, **other})


def rows(bench: Any) -> list[list[Any]]:
    sql = "SELECT state, toUnixTimestamp64Milli(opened_at), toUnixTimestamp64Milli(closed_at) FROM alerts "
    found = bench.clickhouse.rows(sql + "WHERE key = {key:String} ORDER BY at", {"key": bench.vehicle("trouble")})
    return [[state, int(opened), closed and int(closed)] for state, opened, closed in found]


def test_an_alert_opens_once_and_closes_once(bench: Any, start: Callable[[], Told]) -> None:
    """Said again, by this process or the next one, nothing is added; after its closing it opens anew."""
    first = start()
    one = alert(bench, detail={"z": 8.5, "why": "median"})
    assert [first.alerts.open(one), first.alerts.open(one), first.alerts.open(alert(bench, AT + 1))] == [
        True,
        False,
        False,
    ]
    second = start()
    assert not second.alerts.open(one)
    assert one in second.alerts.now_open()
    assert second.metric(one.kind) == 1
    assert [second.alerts.close(one.key, AT + 9), second.alerts.close(one.key, AT + 10)] == [True, False]
    assert second.metric(one.kind) == 0
    third = start()
    assert not third.alerts.close(one.key, AT + 9)
    assert not any(found.key == one.key for found in third.alerts.now_open())
    assert third.alerts.open(alert(bench, AT + 20))
    assert rows(bench) == [["open", AT, None], ["closed", AT, AT + 9], ["open", AT + 20, None]]


def test_a_segment_that_is_loaded_again_repeats_no_alert(bench: Any, start: Callable[[], Told]) -> None:
    """Its opening and closing, and those of a segment that was parked for long, are older than what is known."""
    told = start()
    for again in (told, start()):
        again.alerts.open(alert(bench, AT))
        again.alerts.close(alert(bench).key, AT + 9)
    late = start().alerts
    assert not late.open(alert(bench, AT - 50))
    assert not late.close(alert(bench).key, AT - 40)
    late.open(alert(bench, AT + 100))
    assert not late.close(alert(bench).key, AT + 100)
    assert len(rows(bench)) == 3


def test_deliveries_get_what_stands_in_the_table(bench: Any, start: Callable[[], Told]) -> None:
    """Opening and closing are told in full, in words and numbers fit for JSON, under one id."""
    told = start()
    one = alert(bench, detail={"z": 8.5})
    told.alerts.open(one)
    told.alerts.close(one.key, AT + 9)
    opened, closed = (msgspec.json.decode(msgspec.json.encode(event)) for event in told.events)
    assert (opened["event"], opened["closed_at_ms"]) == ("alert.opened", None)
    assert (closed["event"], closed["closed_at_ms"]) == ("alert.closed", AT + 9)
    assert opened["alert_id"] == closed["alert_id"] == one.id
    same = ("key", "kind", "tenant", "cohort", "signal", "before", "after", "vehicles", "opened_at_ms", "detail")
    assert all(opened[name] == closed[name] == getattr(one, name) for name in same)
    sql = "SELECT alert_id, state, before, after, vehicles, detail FROM alerts_now WHERE key = {key:String}"
    [[*found]] = bench.clickhouse.rows(sql, {"key": one.key})
    assert [*map(str, found)] == [one.id, "closed", "52.5", "32.75", "41", '{"z":8.5}']


def test_what_was_delivered_can_be_read_again(bench: Any, start: Callable[[], Told]) -> None:
    """By a load that starts again, from a time on: openings and closings as they were told."""
    first = start()
    one = alert(bench, detail={"why": "median"})
    first.alerts.open(one)
    first.alerts.close(one.key, AT + 5)
    mine = [event for event in start().alerts.since(AT) if event["key"] == one.key]
    assert (mine, [event["event"] for event in mine]) == (first.events, ["alert.opened", "alert.closed"])
    assert [event["event"] for event in start().alerts.since(AT + 1) if event["key"] == one.key] == ["alert.closed"]
