"""What the gate decided in a run, as JSON for `fleetsim score`: every change of a device's state, and every alert.

Reads only, from the records of control, from ClickHouse and from the edge's metrics. Simulator and gate share no code,
so this file's shape is the one thing that they agree on (docs/reference/scenarios.md).
"""

from __future__ import annotations

from msgspec import Struct

from fleetgate.control.audit import list_audit
from fleetgate.control.states import Outcome
from fleetgate.control.store import TRANSITION, Store
from fleetgate.demo.figures import Rising, scrape
from fleetgate.load.clickhouse import ServerClickHouse

_EVERYTHING = 10_000_000
_ALERTS = (
    "SELECT kind, tenant, cohort, signal, toUnixTimestamp64Milli(opened_at), vehicles,"
    " JSONExtractInt(detail, 'since_ms') FROM alerts_now ORDER BY opened_at"
)


class Moved(Struct, frozen=True):
    """A device's state changed, `at_ms` by the edge's clock."""

    tenant: str
    device_id: str
    after: str
    at_ms: int
    why: str


class Opened(Struct, frozen=True):
    """An alert, whether or not it has closed; `since_ms` is when what it tells began, as far as it says so."""

    kind: str
    tenant: str
    cohort: str
    signal: str
    opened_ms: int
    since_ms: int
    vehicles: int


class Decisions(Struct, frozen=True):
    """`disorder` is how many messages of each class the edge has counted since its start; not `complete` where the gate
    had not loaded or looked at everything yet."""

    transitions: list[Moved]
    alerts: list[Opened]
    disorder: dict[str, int]
    complete: bool


def decisions(store: Store, clickhouse: ServerClickHouse, edge_listen: str, *, complete: bool) -> Decisions:
    """All of a gate, oldest first; `edge_listen` is where its edge shows its metrics."""
    moved = [
        Moved(entry.tenant, entry.object.removeprefix("device/"), detail["after"], detail["at_ms"], detail["why"])
        for entry in reversed(list_audit(store, None, None, _EVERYTHING))
        if entry.action == TRANSITION and (detail := entry.detail)["outcome"] == Outcome.APPLIED
    ]
    opened = [
        Opened(kind, tenant, cohort, signal, int(opened_ms), int(since_ms) or int(opened_ms), int(vehicles))
        for kind, tenant, cohort, signal, opened_ms, vehicles, since_ms in clickhouse.rows(_ALERTS)
    ]
    counts = Rising()
    counts.take(scrape(edge_listen) or {})
    disorder = {name: int(count) for name, count in counts.by("fleetgate_disorder_total", "class").items()}
    return Decisions(moved, opened, disorder, complete)
