"""The alerts as a person asks for them, from the view `alerts_now`."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from fleetgate.config import Config
from fleetgate.converting import converter
from fleetgate.load.alerts import REMEMBER_MS
from fleetgate.load.ask import ask

MOST = 1_000
"""More than a person reads; the view has all of them."""

_LIST = f"""
SELECT alert_id, kind, tenant, cohort, signal, before, after, vehicles,
       toUnixTimestamp64Milli(opened_at) AS opened_at_ms, toUnixTimestamp64Milli(closed_at) AS closed_at_ms, detail
FROM alerts_now
WHERE closed_at IS NULL OR (closed_at >= fromUnixTimestamp64Milli({{since:Int64}}) AND {{closed:UInt8}} = 1)
ORDER BY opened_at DESC, alert_id LIMIT {MOST}
"""  # noqa: S608  a number of ours


class Listed(Struct, frozen=True):
    """`closed_at_ms` is None while the alert is open, `before` and `after` where its kind compares nothing."""

    alert_id: str
    kind: str
    tenant: str
    cohort: str
    signal: str
    before: float | None
    after: float | None
    vehicles: int
    opened_at_ms: int
    closed_at_ms: int | None
    detail: dict[str, Any]


def list_alerts(config: Config, now_ms: int, closed: bool, offline: bool) -> list[Listed]:
    """The newest first; raises ClickHouseAway, CheckFailed, NotFound."""
    asked = {"since": now_ms - REMEMBER_MS, "closed": int(closed)}
    found = []
    for line in ask(config, _LIST, "JSONEachRow", offline, asked).splitlines():
        row = msgspec.json.decode(line)
        row["detail"] = msgspec.json.decode(row["detail"])
        found.append(_listed(row))  # older servers quote integers
    return found


_listed = converter(Listed, strict=False)
