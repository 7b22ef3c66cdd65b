"""An opening as an alert, as it stands in the table `alerts`; and an alert as what it was an opening of.

Decides what a person and a later start are told of it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from fleetgate.load.alerts import Alert
from fleetgate.load.watch.changes import Opening
from fleetgate.load.watch.cohorts import Cohort
from fleetgate.load.watch.kinds import Series


def alert_of(opening: Opening, opened_at_ms: int) -> Alert:
    series = opening.series
    cohort = series.cohort
    detail: dict[str, str | int | float] = {
        "since": datetime.fromtimestamp(opening.since_ms / 1000, UTC).isoformat(timespec="seconds"),
        "since_ms": opening.since_ms,
        "scatter": opening.scatter,
    }
    if cohort.software is not None:
        detail["software"] = cohort.software
    if cohort.config is not None:
        detail["config"] = cohort.config
    if cohort.cell is not None:
        detail |= {"cell_north": cohort.cell[0], "cell_east": cohort.cell[1]}
    return Alert(
        key=series.key,
        kind=series.kind,
        tenant=cohort.tenant,
        cohort=cohort.words(),
        signal=series.signal,
        before=opening.before,
        after=opening.after,
        vehicles=opening.vehicles,
        opened_at_ms=opened_at_ms,
        detail=detail,
    )


def series_of(alert: Alert) -> Series | None:
    """What an alert of the watch is about; None for one of somebody else."""
    if not alert.key.startswith("watch | "):
        return None
    detail = alert.detail
    software, config = (str(detail[name]) if name in detail else None for name in ("software", "config"))
    cell = (int(detail["cell_north"]), int(detail["cell_east"])) if "cell_north" in detail else None
    return Series(alert.kind, Cohort(alert.tenant, software, config, cell), alert.signal)
