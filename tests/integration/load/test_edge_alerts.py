"""Alerts of an edge: from its spool to control and to the table, once each."""

from __future__ import annotations

from typing import Any

import msgspec
from tests.spools import ALERT


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
    assert [record.state for record in bench.noted_alerts] == ["open", "closed"] * 2
