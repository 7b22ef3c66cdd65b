"""Compares what a load test sent with what is stored in ClickHouse, message by message and event by event.

Decides what is lost, doubled or unexpected, and how long to wait for load to come to the end of the spool. Whether a
count is too high is `thresholds`'. Reads only; changes nothing at the gate.

    lost         events that were acknowledged and are in no table; the missing part of a message that is there in part
    duplicated   rows beyond the first of the same event
    unexpected   rows of what was refused or of numbers never sent, and events beyond those of a message

What a quarantined device sent is in `held_events`, and counts as stored: it was acknowledged and it is kept.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from loadtest.messages import Messages

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.control.records import DeviceState
from fleetgate.control.roster import list_devices
from fleetgate.control.store import Store
from fleetgate.errors import FleetgateError
from fleetgate.load.clickhouse import ClickHouse, Refused
from fleetgate.load.endpoint import reader

SETTLE_SECONDS = 30.0
"""Load is waited for while rows of the run come, and so much longer: three times its longest pause between tries."""

CALM_SECONDS = 3.0
"""Nothing is missing, and for so long nothing came: what is doubled or was refused may be in a later segment."""

_LOOK_SECONDS = 1.0
_AT_ONCE = 500_000  # messages compared together: 400 MB here, and some hundred at ClickHouse
_BEFORE_MS = 3_600_000  # how far the gate's clock may be behind the generator's
_AFTER_MS = 5_000  # what was on its way; later ones are of another run
_EXAMPLES = 10

_STORED = """
SELECT concat(toString(tenant), '/', toString(device_id)) AS device, epoch, seq, count() AS stored,
    uniqExact(event_index) AS events_stored, max(is_held) AS held,
    toUInt8(toUnixTimestamp64Milli(min(received_at)) BETWEEN {started_ms:Int64} AND {ended_ms:Int64}) AS within
FROM (SELECT tenant, device_id, epoch, seq, event_index, received_at, toUInt8(0) AS is_held FROM events
      WHERE tenant IN splitByChar(',', {tenants:String}) AND decision = ''
      AND received_at >= fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC')
      UNION ALL
      SELECT tenant, device_id, epoch, seq, event_index, received_at, toUInt8(1) AS is_held FROM held_events
      WHERE tenant IN splitByChar(',', {tenants:String})
      AND received_at >= fromUnixTimestamp64Milli({since_ms:Int64}, 'UTC'))
WHERE seq % {parts:UInt64} = {part:UInt64}
GROUP BY tenant, device_id, epoch, seq
"""
_KEY = ["device", "epoch", "seq"]
_WRONG = ("lost", "duplicated", "unexpected")
_COUNTS = ("sent_messages", "sent", "acknowledged_messages", "acknowledged", "stored", *_WRONG)


class Unreconciled(Exception):
    """Sent and stored could not be compared; the text says why, and what to look at."""


class Reconciliation(msgspec.Struct, frozen=True):
    """Counts of events, but for `*_messages`. `examples` are messages behind `lost`, `duplicated` or `unexpected`;
    `false_quarantines` is None where nobody could look."""

    sent_messages: int
    sent: int
    acknowledged_messages: int
    acknowledged: int
    stored: int
    lost: int
    duplicated: int
    unexpected: int
    false_quarantines: list[str] | None
    examples: list[str]
    notes: list[str]


def reconcile(
    messages: Messages,
    config: Config,
    started_ms: int,
    ended_ms: int,
    settle_s: float = SETTLE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Reconciliation:
    """`config` is the gate's: its ClickHouse, and its records of control where they can be read from here. Raises
    Unreconciled."""
    try:
        clickhouse = reader(config)
        try:
            found = _settled(messages, clickhouse, (started_ms, ended_ms), settle_s, sleep)
        finally:
            clickhouse.close()
    except (FleetgateError, Refused) as error:
        raise Unreconciled(
            f"sent could not be compared with stored: {error}; nothing is known to be lost, and nothing to be there"
        ) from None
    honest = {device.name for device in messages.devices if not device.hostile}
    wronged, notes = sorted(honest & found.held), []
    try:
        wronged = sorted(honest & (quarantined(config) | found.held))
    except FleetgateError as error:
        notes = [f"control could not be read ({error}): only quarantines with held rows were found"]
    return Reconciliation(
        **{name: found.counts[name] for name in _COUNTS},
        false_quarantines=None if notes and not wronged else wronged,
        examples=found.examples[:_EXAMPLES],
        notes=notes,
    )


class _Look(NamedTuple):
    """Everything that was sent beside everything that is stored. `held` are devices with rows in `held_events`."""

    counts: Counter[str]
    examples: list[str]
    held: set[str]


def _settled(
    messages: Messages,
    clickhouse: ClickHouse,
    span_ms: tuple[int, int],
    settle_s: float,
    sleep: Callable[[float], None],
) -> _Look:
    """The last look when nothing comes any more: soon where nothing is missing, and else when nobody waits longer."""
    newest, quiet_s = -1, 0.0
    while True:
        found = _look(messages, clickhouse, span_ms)
        quiet_s = 0.0 if found.counts["stored"] > newest else quiet_s + _LOOK_SECONDS
        if quiet_s >= (settle_s if found.counts["lost"] else min(settle_s, CALM_SECONDS)):
            return found
        newest = found.counts["stored"]
        sleep(_LOOK_SECONDS)


def _look(messages: Messages, clickhouse: ClickHouse, span_ms: tuple[int, int]) -> _Look:
    found = _Look(Counter(), [], set())
    started_ms, ended_ms = span_ms
    epochs, parts = messages.epochs(), len(messages.records) // _AT_ONCE + 1
    tenants = ",".join(sorted({device.tenant for device in messages.devices}))
    unsure = pa.array(sorted(messages.unsure), pa.string())
    times = {"started_ms": started_ms, "ended_ms": ended_ms + _AFTER_MS, "since_ms": started_ms - _BEFORE_MS}
    for part in range(parts):
        stored = clickhouse.raw(_STORED, "ArrowStream", {**times, "parts": parts, "part": part, "tenants": tenants})
        _add(found, _joined(messages.fates(part, parts), pa.ipc.open_stream(stored).read_all(), epochs, unsure))
    return found


def _joined(fates: pa.Table, stored: pa.Table, epochs: pa.Table, unsure: pa.Array) -> pa.Table:
    """A row for each message that was sent or is stored, without those of strangers; with what is wrong with it."""
    of_run = epochs.append_column("of_run", pa.repeat(True, epochs.num_rows))
    theirs = stored.join(epochs, "device", join_type="left semi").join(of_run, ["device", "epoch"])
    # What another run on the same gate left under these names, before or since, is not of this one.
    theirs = theirs.filter((pc.field("within") == 1) | pc.field("of_run").is_valid())
    both = fates.join(theirs, _KEY, join_type="full outer")
    events, fate, distinct, rows = (
        pc.fill_null(both[name], 0).cast(pa.int64()) for name in ("events", "fate", "events_stored", "stored")
    )
    must_be_there = pc.or_(pc.equal(fate, 2), pc.greater(distinct, 0))
    known = pc.is_valid(both["fate"])
    zero = pa.scalar(0, pa.int64())
    too_many = pc.max_element_wise(pc.subtract(distinct, events), zero)
    # A device of a journal that was cut off may have sent more than is known.
    strange = pc.if_else(pc.is_in(both["device"], unsure), zero, rows)
    counted = {
        "lost": pc.if_else(must_be_there, pc.max_element_wise(pc.subtract(events, distinct), zero), zero),
        "duplicated": pc.subtract(rows, distinct),
        "unexpected": pc.if_else(known, pc.if_else(pc.equal(fate, 1), rows, too_many), strange),
    }
    for name, column in counted.items():
        both = both.append_column(name, column)
    return both


def _add(found: _Look, both: pa.Table) -> None:
    sent, acknowledged = both.filter(pc.field("fate").is_valid()), both.filter(pc.field("fate") == 2)
    found.counts.update(
        {
            "sent_messages": sent.num_rows,
            "sent": _sum(sent["events"]),
            "acknowledged_messages": acknowledged.num_rows,
            "acknowledged": _sum(acknowledged["events"]),
            **{name: _sum(both[name]) for name in ("stored", *_WRONG)},
        }
    )
    found.held.update(both.filter(pc.field("held") == 1)["device"].to_pylist())
    wrong = both.filter((pc.field("lost") > 0) | (pc.field("duplicated") > 0) | (pc.field("unexpected") > 0))
    found.examples.extend(_example(row) for row in wrong.slice(0, _EXAMPLES).to_pylist())


def _example(row: dict[str, Any]) -> str:
    what = ", ".join(f"{row[name]} {name}" for name in _WRONG if row[name])
    return f"{row['device']}, epoch {row['epoch']}, seq {row['seq']}: {what}"


def quarantined(config: Config) -> set[str]:
    """The devices that control has in quarantine, as tenant/device. Raises FleetgateError where it cannot be asked."""
    with Store.open(config, SystemClock()) as store:
        devices = list_devices(store)
    states = (DeviceState.QUARANTINED, DeviceState.BANNED)
    return {f"{device.tenant}/{device.device_id}" for device in devices if device.state in states}


def _sum(column: Any) -> int:
    return int(pc.sum(column).as_py() or 0)
