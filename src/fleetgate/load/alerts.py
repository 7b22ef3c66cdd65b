"""Alerts: each opens once and closes once, whoever raises it and however often it is said.

Decides what is already known: of one key at most one alert is open, and what is older than the newest word about a key
says nothing new (a segment that is loaded again repeats its alerts). The table `alerts` is the memory, so a restart
changes nothing. Tells the metric, the log and every delivery. What is worth an alert is decided by who raises it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from fleetgate import log
from fleetgate.clock import Clock
from fleetgate.control.edgealerts import alert_id
from fleetgate.converting import converter
from fleetgate.load.arrow import DAY_MS, MILLISECONDS
from fleetgate.load.clickhouse import ClickHouse, Refused
from fleetgate.load.counts import Counts

REMEMBER_MS = 30 * DAY_MS
"""How long a closed alert is remembered: a parked segment may be loaded again after weeks."""

Deliver = Callable[[Mapping[str, Any]], None]
"""Takes an opening or closing, a dict that is fit for JSON; never blocks, raises nothing."""


class Alert(Struct, frozen=True, kw_only=True):
    """`cohort` says whose vehicles in words, `signal` a path or reason; `before` and `after` are in the unit of `kind`,
    None where it compares nothing.
    The key says which of all possible alerts this is: two of one key are the same trouble."""

    key: str
    kind: str
    tenant: str
    opened_at_ms: int
    cohort: str = ""
    signal: str = ""
    before: float | None = None
    after: float | None = None
    vehicles: int = 0
    detail: dict[str, str | int | float] = {}
    closed_at_ms: int | None = None

    @property
    def id(self) -> str:
        return alert_id(self.key, self.opened_at_ms)

    @property
    def newest_ms(self) -> int:
        return self.opened_at_ms if self.closed_at_ms is None else self.closed_at_ms


_COLUMNS = """
SELECT key, kind, tenant, toUnixTimestamp64Milli(opened_at) AS opened_at_ms, cohort, signal, before, after, vehicles,
       detail, toUnixTimestamp64Milli(closed_at) AS closed_at_ms
"""
_SINCE = f"{_COLUMNS} FROM alerts WHERE at >= fromUnixTimestamp64Milli({{since:Int64}}) ORDER BY at, alert_id"
_KNOWN = f"""
{_COLUMNS} FROM alerts_now WHERE closed_at IS NULL OR closed_at >= fromUnixTimestamp64Milli({{since:Int64}})
ORDER BY opened_at
"""


class Alerts:
    """For any thread. Methods raise ClickHouseAway: nothing was told, the same may be said again. What ClickHouse
    refuses is logged and told to nobody: it would be refused again, and who raises alerts has other things to do."""

    def __init__(
        self, clickhouse: ClickHouse, counts: Counts, clock: Clock, deliveries: Sequence[Deliver] = ()
    ) -> None:
        self._clickhouse = clickhouse
        self._counts = counts
        self._clock = clock
        self._deliveries = deliveries
        self._log = log.get("load")
        self._lock = threading.Lock()
        self._newest: dict[str, Alert] | None = None  # of each key

    def open(self, alert: Alert) -> bool:
        """Whether that is news."""
        with self._lock, self._refused_of(alert.key):
            known = self._known().get(alert.key)
            if known is not None and (known.closed_at_ms is None or alert.opened_at_ms <= known.newest_ms):
                return False
            self._tell(alert)
            return True
        return False

    def close(self, key: str, at_ms: int) -> bool:
        """Whether that is news: of an alert that is not open, or was opened later, it is none."""
        with self._lock, self._refused_of(key):
            known = self._known().get(key)
            if known is None or known.closed_at_ms is not None or at_ms <= known.opened_at_ms:
                return False
            self._tell(msgspec.structs.replace(known, closed_at_ms=at_ms))
            return True
        return False

    def newest_ms(self, key: str) -> int:
        """When its newest word was said: only what is later is news. 0 where there is none. Raises Refused too."""
        with self._lock:
            known = self._known().get(key)
            return 0 if known is None else known.newest_ms

    def read_again(self) -> None:
        """From the table, where another load may have written meanwhile."""
        with self._lock:
            self._newest = None

    def now_open(self) -> list[Alert]:
        """Raises Refused too."""
        with self._lock:
            return [alert for alert in self._known().values() if alert.closed_at_ms is None]

    def since(self, at_ms: int) -> list[dict[str, Any]]:
        """Openings and closings from this time on, oldest first, as they were delivered. Raises Refused too."""
        return [event_of(alert) for alert in self._read(_SINCE, at_ms)]

    @contextmanager
    def _refused_of(self, key: str) -> Iterator[None]:
        try:
            yield
        except Refused as error:
            self._log.error("alert_refused", alert=key, error=str(error))

    def _known(self) -> dict[str, Alert]:
        if self._newest is None:
            self._newest = {alert.key: alert for alert in self._read(_KNOWN, self._clock.now_ms() - REMEMBER_MS)}
            self._counts.alerts_open.clear()
            for alert in self._newest.values():
                self._counts.alerts_open.labels(alert.kind).inc(alert.closed_at_ms is None)
        return self._newest

    def _read(self, sql: str, since_ms: int) -> Iterator[Alert]:
        """A row that is none of ours, or of another version, is no reason to know none of the others."""
        for row in self._clickhouse.raw(sql, "JSONEachRow", {"since": since_ms}).splitlines():
            try:
                yield _alert(row)
            except (msgspec.MsgspecError, UnicodeDecodeError, KeyError) as error:
                self._log.error("alert_unreadable", error=log.unforeseen(error))

    def _tell(self, alert: Alert) -> None:
        opened = alert.closed_at_ms is None
        self._clickhouse.insert("alerts", _row(alert), f"alert-{alert.id}-{'open' if opened else 'closed'}")
        self._known()[alert.key] = alert
        self._counts.alerts_open.labels(alert.kind).inc(1 if opened else -1)
        say = self._log.warning if opened else self._log.info
        told = msgspec.to_builtins(alert)
        # What is called a key is taken for a secret there.
        say("alert_opened" if opened else "alert_closed", alert_id=alert.id, alert=told.pop("key"), **told)
        for deliver in self._deliveries:
            deliver(event_of(alert))


def event_of(alert: Alert) -> dict[str, Any]:
    """An opening or closing as it is delivered."""
    kind = "alert.opened" if alert.closed_at_ms is None else "alert.closed"
    return {"event": kind, "alert_id": alert.id, **msgspec.to_builtins(alert)}


def _alert(line: bytes) -> Alert:
    """Raises MsgspecError, UnicodeDecodeError, KeyError."""
    row = msgspec.json.decode(line)
    row["detail"] = msgspec.json.decode(row["detail"])
    return _convert(row)  # older servers quote integers


def _row(alert: Alert) -> pa.Table:
    opened = alert.closed_at_ms is None
    texts = {
        "alert_id": alert.id,
        "key": alert.key,
        "state": "open" if opened else "closed",
        "kind": alert.kind,
        "tenant": alert.tenant,
        "cohort": alert.cohort,
        "signal": alert.signal,
        "detail": msgspec.json.encode(alert.detail).decode(),
    }
    times = {"at": alert.newest_ms, "opened_at": alert.opened_at_ms, "closed_at": alert.closed_at_ms}
    return pa.table(
        {
            **{name: pa.array([text], type=pa.string()) for name, text in texts.items()},
            **{
                name: pa.array([math.nan if value is None else value], type=pa.float64())  # read as null
                for name, value in [("before", alert.before), ("after", alert.after)]
            },
            "vehicles": pa.array([alert.vehicles], type=pa.uint64()),
            **{name: pa.array([at], type=MILLISECONDS) for name, at in times.items()},
        }
    )


_convert = converter(Alert, strict=False)
