"""Alerts that an edge has raised: from records of the spool to the alerts of everybody (`alerts`).

Decides what of a record becomes which field. Each word of an alert is taken once, however often its segment is loaded;
one that ClickHouse refuses stops no telemetry, and control has it, too.
"""

from __future__ import annotations

from fleetgate.load.alerts import Alert, Alerts
from fleetgate.spool.format import AlertRecord
from fleetgate.spool.reader import Segment


def raise_alerts(alerts: Alerts, segment: Segment) -> None:
    """Those of one segment, in their order. Raises ClickHouseAway."""
    for _, record in segment.alerts:
        if record.state == "open":
            alerts.open(alert_of(record))
        else:
            alerts.close(record.key, record.at)


def alert_of(record: AlertRecord) -> Alert:
    detail = dict(record.detail)
    vehicles = detail.pop("vehicles", 0)
    return Alert(
        key=record.key,
        kind=record.kind,
        tenant=record.tenant,
        opened_at_ms=record.at,
        cohort=record.cohort,
        signal=str(detail.pop("signal_1", "")),
        vehicles=int(vehicles) if isinstance(vehicles, int | float) else 0,
        detail=detail,
    )
