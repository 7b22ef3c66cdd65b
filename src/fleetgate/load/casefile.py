"""What ClickHouse has of a device in the time of a case: how often it was refused, and what was taken from it.

The counts are exact: a refusal is in the spool before the device is told of it, and each record of the spool is one row
of `rejections`. They are as new as what is loaded, which is a second or two behind. Decides the questions only; the
time of a case is `control.cases`'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Struct

from fleetgate.config import Config
from fleetgate.load.ask import ask
from fleetgate.load.clickhouse import Parameters

T = TypeVar("T")


class Refusals(Struct, frozen=True):
    """All refusals of one device for one reason and class of disorder (empty for none). They came from `from_addresses`
    addresses, without ports; `addresses` are eight of those at most."""

    reason: str
    disorder: str
    refused: int
    first_at_ms: int
    last_at_ms: int
    addresses: list[str]
    from_addresses: int


class Sent(Struct, frozen=True):
    """Messages that were taken, by what they said of their sender: `held` in quarantine, or `accepted`."""

    software: str
    config: str
    outcome: str
    messages: int
    first_at_ms: int
    last_at_ms: int


class Told(Struct, frozen=True):
    refusals: list[Refusals]
    sent: list[Sent]


_WITHIN = "toUnixTimestamp64Milli(received_at) BETWEEN {since:Int64} AND {until:Int64}"
_DAYS = "toYYYYMMDD(received_at) >= toYYYYMMDD(fromUnixTimestamp64Milli({since:Int64}, 'UTC'))"  # leaves partitions out
_OF_DEVICE = f"tenant = {{tenant:String}} AND device_id = {{device:String}} AND {_DAYS} AND {_WITHIN}"
_REFUSALS = f"""
SELECT reason, disorder, sum(refused) AS refused, toUnixTimestamp64Milli(min(first_at)) AS first_at_ms,
    toUnixTimestamp64Milli(max(received_at)) AS last_at_ms,
    arraySort(groupUniqArray(8)(replaceRegexpOne(address, ':[0-9]+$', '') AS host)) AS addresses,
    uniqExact(host) AS from_addresses
FROM rejections WHERE {_OF_DEVICE} GROUP BY reason, disorder ORDER BY refused DESC, reason, disorder
"""  # noqa: S608  texts of ours
_TIMES = (
    "toUnixTimestamp64Milli(min(received_at)) AS first_at_ms, toUnixTimestamp64Milli(max(received_at)) AS last_at_ms"
)
_VEHICLES = (
    "SELECT DISTINCT vehicle_id FROM received_ranges WHERE tenant = {tenant:String} AND device_id = {device:String}"
)
_SENT = f"""
SELECT software, config, 'held' AS outcome, uniqExact(epoch, seq) AS messages, {_TIMES}
FROM held_events WHERE {_OF_DEVICE} GROUP BY software, config
UNION ALL
SELECT software, config, 'accepted' AS outcome, uniqExact(epoch, seq) AS messages, {_TIMES}
FROM events WHERE vehicle_id IN ({_VEHICLES}) AND {_OF_DEVICE} AND decision = '' GROUP BY software, config
"""  # noqa: S608  texts of ours; `events` lie by vehicle, and what was released was held before


def told_of(config: Config, tenant: str, device_id: str, since_ms: int, until_ms: int) -> Told:
    """Of what was received in that time. Raises ClickHouseAway, CheckFailed, ConfigError without its token."""
    parameters: Parameters = {"tenant": tenant, "device": device_id, "since": since_ms, "until": until_ms}

    def rows(sql: str, decode: Callable[[bytes], T]) -> list[T]:
        lines = ask(config, sql, "JSONEachRow", None, parameters).splitlines()
        return [decode(line) for line in lines]

    return Told(rows(_REFUSALS, _decode_refusals), sorted(rows(_SENT, _decode_sent), key=lambda sent: sent.first_at_ms))


# strict=False: older servers quote integers
_decode_refusals = msgspec.json.Decoder(Refusals, strict=False).decode
_decode_sent = msgspec.json.Decoder(Sent, strict=False).decode
