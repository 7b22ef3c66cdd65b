"""Alerts of an edge: from its spool to control and to the table, once each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from tests.spools import ALERT

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.control.edgealerts import Said, close_alert, note_alert
from fleetgate.control.store import Store
from fleetgate.load.alerts import Alert, Alerts
from fleetgate.load.closings import Closings
from fleetgate.load.counts import Counts
from fleetgate.load.records import Records


def test_an_edges_alert_opens_and_closes_once(bench: Any) -> None:
    """However often its segments are loaded; control is told as well."""
    key = bench.vehicle("breaker")
    opened = msgspec.structs.replace(
        ALERT, key=key, detail={"vehicles": 20, "size": 400, "entered": 19, "signal_1": "malformed_body"}
    )
    for record in (opened, msgspec.structs.replace(opened, state="closed", at=opened.at + 5, detail={})):
        bench.spool.writer.alert(record)
        bench.spool.seal()
    for _ in range(2):
        while bench.loader.step():
            pass
        (bench.spool.directory / "cursor.json").unlink()
        bench.restart()
    sql = "SELECT state, cohort, signal, vehicles, detail FROM alerts WHERE key = {key:String} ORDER BY at"
    rows = [tuple(row) for row in bench.clickhouse.rows(sql, {"key": key})]
    assert [(*row[:3], int(row[3])) for row in rows] == [
        (state, "software 2026.45", "malformed_body", 20) for state in ("open", "closed")
    ]
    assert msgspec.json.decode(rows[0][4]) == {"size": 400, "entered": 19}
    assert ".0" not in rows[0][4], "vehicles are whole"
    told = Alerts(bench.clickhouse, Counts(CollectorRegistry()), SystemClock()).since(0)
    assert {(one["before"], one["after"]) for one in told if one["key"] == key} == {(None, None)}, "it compares nothing"
    assert [record.state for record in bench.noted_alerts] == ["open", "closed"] * 2


def test_what_a_person_closes_is_closed_for_everybody_and_told_once(bench: Any, tmp_path: Path) -> None:
    """Its edge is gone: load hears of it from control. While control is away nothing is told, and nothing lost."""
    config, clock, events = msgspec.structs.replace(Config(), home=str(tmp_path)), SystemClock(), list[Any]()
    one = Alert(key=bench.vehicle("gone"), kind="issuer_expired", tenant="", opened_at_ms=clock.now_ms() - 1_000)
    alerts = Alerts(bench.clickhouse, Counts(CollectorRegistry()), clock, [events.append])
    alerts.open(one)
    with Records(config, clock) as records:
        closings = Closings(alerts, records.closings_since, clock)
        closings.round()
        with Store.open(config, clock, create=True) as store:
            said = Said(key=one.key, state="open", at_ms=one.opened_at_ms, kind=one.kind, tenant="")
            note_alert(store, "load", said)
            closings.round()
            assert [event["event"] for event in events] == ["alert.opened"]
            close_alert(store, one.id, "cli:ann", "the edge was taken down")
        for _ in range(2):
            closings.round()
    assert [(event["event"], event["alert_id"]) for event in events[1:]] == [("alert.closed", one.id)]
