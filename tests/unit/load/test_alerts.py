"""What becomes of an alert that ClickHouse refuses, and how one looks to a receiver.

ClickHouse is a stand-in here: a real one refuses none of ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from fleetgate import log
from fleetgate.clock import SystemClock
from fleetgate.load.alerts import Alert, Alerts, event_of
from fleetgate.load.clickhouse import Refused
from fleetgate.load.counts import Counts
from fleetgate.load.watch.changes import Opening
from fleetgate.load.watch.cohorts import Cohort
from fleetgate.load.watch.kinds import Series
from fleetgate.load.watch.telling import alert_of

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "receive-alerts.md"


class Refusing:
    """Refuses the rows of one key."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def raw(self, *_: object) -> bytes:
        return b""

    def insert(self, _table: str, rows: Any, _token: str) -> None:
        [row] = rows.to_pylist()
        if row["key"] == "watch | acme | refused |  | bad_mac":
            raise Refused(469, "Code: 469. VIOLATED_CONSTRAINT")
        self.rows.append(row)


def test_a_refused_alert_is_named_in_the_log_and_holds_up_nothing() -> None:
    """It would be refused again: who raised it goes on, and nobody is told of what is not in the table."""
    clickhouse: Any = Refusing()
    told: list[str] = []
    alerts = Alerts(
        clickhouse, Counts(CollectorRegistry()), SystemClock(), [lambda event: told.append(str(event["key"]))]
    )
    first, second = "watch | acme | refused |  | bad_mac", "watch | acme | silent |  | "
    with capture_logs() as logs:
        opened = [alerts.open(Alert(key=key, kind="k", tenant="acme", opened_at_ms=5)) for key in (first, second)]
        closed = [alerts.close(key, 9) for key in (first, second)]
    assert (opened, closed) == ([False, True], [False, True])
    assert (told, [row["key"] for row in clickhouse.rows]) == ([second] * 2, [second] * 2)
    lines = [log.redact(None, "", line) for line in logs]
    assert [(line["event"], line["alert"]) for line in lines] == [
        ("alert_refused", first),
        ("alert_opened", second),
        ("alert_closed", second),
    ]


class Strange(Refusing):
    """Has a row that this version did not write, beside one that it did."""

    def raw(self, *_: object) -> bytes:
        row = {"key": "watch | acme | silent |  | ", "kind": "silent", "tenant": "acme", "opened_at_ms": 5}
        row |= {"cohort": "", "signal": "", "before": 0, "after": 1, "vehicles": 20, "closed_at_ms": None}
        rows = [row | {"detail": "{}"}, row | {"key": "other", "detail": "none of ours"}, {"detail": '"text"'}]
        return b"\n".join(map(msgspec.json.encode, rows))


def test_a_row_that_cannot_be_read_hides_no_other() -> None:
    """Neither from who raises alerts nor from who is told them; the log says that there is one."""
    clickhouse: Any = Strange()
    alerts = Alerts(clickhouse, Counts(CollectorRegistry()), SystemClock())
    with capture_logs() as logs:
        assert [event["kind"] for event in alerts.since(0)] == ["silent"]
        assert [alert.kind for alert in alerts.now_open()] == ["silent"]
    assert len(logs) == 4


def test_the_alert_on_the_page_is_one() -> None:
    """What a receiver is written for is what comes."""
    shown = PAGE.read_text().partition("```json\n")[2].partition("```")[0]
    opening = Opening(Series("silent", Cohort("acme", "2026.44.1"), ""), 0.015625, 0.8125, 0.015625, 208, 1795997390000)
    assert msgspec.json.decode(shown) == msgspec.to_builtins(event_of(alert_of(opening, 1795997411250)))
