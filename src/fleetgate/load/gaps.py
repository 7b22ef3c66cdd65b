"""What a vehicle or a device did not deliver, asked of the view `gaps`.

Decides the question only; what a gap is, the view says (schemas/clickhouse/007_received_ranges.sql).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Struct

from fleetgate.config import Config
from fleetgate.errors import NotFound
from fleetgate.load.ask import ask
from fleetgate.load.clickhouse import Parameters

T = TypeVar("T")

MOST_GAPS = 10_000
"""More than a person reads; the view itself has all of them."""


class Gap(Struct, frozen=True):
    """Numbers of one epoch with the same fate: `state` is missing, refused or late. `after_at_ms` is the receipt before
    them (None: none of the epoch), `noticed_at_ms` that of a higher number or of their refusal; late ones came between
    `came_from_ms` and `came_at_ms`."""

    tenant: str
    vehicle_id: str
    device_id: str
    epoch: int
    first_seq: int
    last_seq: int
    numbers: int
    state: str
    reasons: list[str]
    after_at_ms: int | None
    noticed_at_ms: int
    came_from_ms: int | None
    came_at_ms: int | None


class Summary(Struct, frozen=True):
    """Numbers by state; `more` when there are more gaps than are listed, `heard_at_ms` the last receipt known."""

    missing: int
    refused: int
    late: int
    more: bool
    heard_at_ms: int


class Report(Struct, frozen=True):
    gaps: list[Gap]
    summary: Summary


class _Heard(Struct):
    ranges: int
    heard_at_ms: int


class _Sum(Struct):
    state: str
    sum: int


_TIMES = ("after_at", "noticed_at", "came_from", "came_at")
_COLUMNS = ", ".join(
    [
        *("tenant", "vehicle_id", "device_id", "epoch", "first_seq", "last_seq", "numbers", "state", "reasons"),
        *(f"toUnixTimestamp64Milli({name}) AS {name}_ms" for name in _TIMES),
    ]
)
_HEARD = "SELECT count() AS ranges, toUnixTimestamp64Milli(max(received_at)) AS heard_at_ms FROM received_ranges"
_LATELY = "toUnixTimestamp64Milli(greatest(noticed_at, ifNull(came_at, noticed_at))) >= {since:Int64}"
_OF_DEVICE = "tenant = {tenant:String} AND device_id = {device:String}"
_OF_VEHICLE = "vehicle_id = {vehicle:String}"


class Whose(Struct, frozen=True):
    """One device, or one vehicle whatever device sat in it."""

    tenant: str = ""
    device: str = ""
    vehicle: str = ""

    def __str__(self) -> str:
        return self.vehicle or f"{self.tenant}/{self.device}"


def find_gaps(config: Config, whose: Whose, since_ms: int, offline: bool) -> Report:
    """Those that were noticed or closed since `since_ms`.

    Raises NotFound where nothing was ever received, ClickHouseAway, CheckFailed.
    """
    parameters: Parameters = {
        "tenant": whose.tenant,
        "device": whose.device,
        "vehicle": whose.vehicle,
        "since": since_ms,
    }
    own = _OF_VEHICLE if whose.vehicle else _OF_DEVICE
    # The view reads only the ranges of the devices that it is asked for; of a vehicle it must be told which these are.
    devices = f"(tenant, device_id) IN (SELECT tenant, device_id FROM received_ranges WHERE {own}) AND {own}"  # noqa: S608  texts of ours
    wanted = f"FROM gaps WHERE {devices if whose.vehicle else own} AND {_LATELY}"

    def rows(sql: str, decode: Callable[[bytes], T]) -> list[T]:
        lines = ask(config, sql, "JSONEachRow", offline, parameters).splitlines()
        return [decode(line) for line in lines]

    [heard] = rows(f"{_HEARD} WHERE {own}", _decode_heard)
    if not heard.ranges:
        raise NotFound(f"nothing was ever received from {whose}, or it is not loaded yet (`fleetgate spool ls`)")
    sums = {
        one.state: one.sum for one in rows(f"SELECT state, sum(numbers) AS sum {wanted} GROUP BY state", _decode_sum)
    }
    gaps = rows(
        f"SELECT {_COLUMNS} {wanted} ORDER BY tenant, device_id, epoch, first_seq LIMIT {MOST_GAPS}",
        _decode_gap,
    )
    return Report(
        gaps,
        Summary(
            missing=sums.get("missing", 0),
            refused=sums.get("refused", 0),
            late=sums.get("late", 0),
            more=len(gaps) == MOST_GAPS,
            heard_at_ms=heard.heard_at_ms,
        ),
    )


# strict=False: older servers quote integers
_decode_heard = msgspec.json.Decoder(_Heard, strict=False).decode
_decode_gap = msgspec.json.Decoder(Gap, strict=False).decode
_decode_sum = msgspec.json.Decoder(_Sum, strict=False).decode
