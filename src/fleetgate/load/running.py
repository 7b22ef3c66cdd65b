"""How many devices of a tenant run which software, by what came in the last day: for whoever names a version."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from fleetgate.config import Config
from fleetgate.load.ask import ask

_RUNNING = """
SELECT software, uniq(device_id) AS devices FROM pulses
WHERE tenant = {tenant:String} AND received_at > now64(3) - INTERVAL 1 DAY GROUP BY software
"""


class _Running(Struct, frozen=True):
    software: str
    devices: int


def devices_by_software(config: Config, tenant: str) -> dict[str, int]:
    """Raises ClickHouseAway, CheckFailed, ConfigError without its token."""
    lines = ask(config, _RUNNING, "JSONEachRow", None, {"tenant": tenant}).splitlines()
    rows = [_decode(line) for line in lines]  # older servers quote integers
    return {row.software: row.devices for row in rows}


_decode = msgspec.json.Decoder(_Running, strict=False).decode
