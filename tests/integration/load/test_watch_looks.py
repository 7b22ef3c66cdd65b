"""The watch on a real ClickHouse: pulses and refusals in, alerts out, and what a restart makes of it."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from fleetgate.catalogue import catalogue
from fleetgate.clock import SystemClock
from fleetgate.load.alerts import Alerts
from fleetgate.load.columns import MILLISECONDS
from fleetgate.load.counts import Counts
from fleetgate.load.watch.measures import LOOK_MS
from fleetgate.load.watch.usual import LEAST_LOOKS
from fleetgate.load.watch.watcher import HOUR_MS, Watcher

VEHICLES = 60
TROUBLE = LEAST_LOOKS + 3
END = TROUBLE + 6
# An hour ago, so that a full hour lies among the looks, and no other test's rows.
START_MS = SystemClock().now_ms() // HOUR_MS * HOUR_MS - HOUR_MS - (TROUBLE - 2) * LOOK_MS

TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("received_at", "event_time"), MILLISECONDS),
    **dict.fromkeys(("tenant", "vehicle_id", "device_id", "outcome", "software", "config", "spool"), pa.string()),
    **dict.fromkeys(
        ("epoch", "messages", "late", "events", "faults", "unknown", "readings", "implausible"), pa.uint32()
    ),
    **dict.fromkeys(("first_seq", "last_seq", "segment", "record_offset"), pa.uint64()),
    "delay_ms": pa.int64(),
    "signal_ids": pa.list_(pa.uint16()),
    "signal_values": pa.list_(pa.float64()),
}


def pulse(tenant: str, vehicle: int, look: int, at_ms: int, rng: random.Random) -> dict[str, Any]:
    """From TROUBLE on the newer software reports its speed in another unit."""
    software = "2" if vehicle % 2 else "1"
    speed = rng.gauss(100, 10) * (0.62 if software == "2" and look > TROUBLE else 1)
    return {
        **dict.fromkeys(("late", "faults", "unknown", "implausible", "segment"), 0),
        "tenant": tenant,
        "vehicle_id": f"v{vehicle}",
        "device_id": f"v{vehicle}-tcu",
        "outcome": "accepted",
        "received_at": at_ms,
        "event_time": at_ms - 50,
        "software": software,
        "config": "c",
        "delay_ms": 50,
        "epoch": 1,
        "first_seq": look,
        "last_seq": look,
        "messages": 1,
        "events": 1,
        "readings": 3,
        "signal_ids": [1, 7, 8],
        "signal_values": [speed, 48.1 + vehicle / 1000, 11.5],
        "spool": tenant,
        "record_offset": look * VEHICLES + vehicle,
    }


def refusal(tenant: str, vehicle: int, at_ms: int) -> dict[str, Any]:
    facts = {"tenant": tenant, "device_id": f"v{vehicle}-tcu", "reason": "malformed_body", "spool": tenant}
    return facts | {"refused": 3, "received_at": at_ms}


def table(rows: list[dict[str, Any]], types: dict[str, pa.DataType]) -> pa.Table:
    return pa.table({name: pa.array([row[name] for row in rows], type=kind) for name, kind in types.items()})


@pytest.fixture(scope="module")
def tenant(engine: Any) -> str:
    """A tenant whose vehicles speak every ten seconds; the newer software goes wrong."""
    name, rng = "watched", random.Random(1)
    looks = range(1, END + 1)
    pulses = [
        pulse(name, vehicle, look, START_MS + look * LOOK_MS - vehicle * 100, rng)
        for look in looks
        for vehicle in range(VEHICLES)
    ]
    refused = [
        refusal(name, v, START_MS + look * LOOK_MS - 1) for look in looks for v in range(1, 40, 2) if look > TROUBLE
    ]
    engine.insert("pulses", table(pulses, TYPES), "watched-pulses")
    types = {name: TYPES[name] for name in ("tenant", "device_id", "received_at", "spool")}
    engine.insert(
        "rejections", table(refused, {**types, "reason": pa.string(), "refused": pa.uint64()}), "watched-refused"
    )
    return name


class Watched:
    """A watch as a new process has it."""

    def __init__(self, engine: Any) -> None:
        counts = Counts(CollectorRegistry())
        self.told: list[dict[str, Any]] = []
        self.looked = 0
        self.alerts = Alerts(engine, counts, SystemClock(), [lambda event: self.told.append(dict(event))])
        self.watcher = Watcher(engine, engine, self.alerts, catalogue(), counts, SystemClock(), lambda: None)

    def until(self, look: int) -> list[tuple[str, str, str, str]]:
        before = len(self.told)
        for at in range(self.looked + 1, look + 1):
            self.watcher.look_until(START_MS + at * LOOK_MS)
        self.looked = look
        names = ("event", "kind", "cohort", "signal")
        return sorted(tuple(str(one[name]) for name in names) for one in self.told[before:])  # type: ignore[misc]


def test_a_release_that_goes_wrong_is_seen_and_told_once(engine: Any, tenant: str) -> None:
    """Within a minute, by what it is about and with what was and is; a restart goes on where it was."""
    watched = Watched(engine)
    assert watched.until(1) == []
    assert watched.until(TROUBLE) == []
    told = watched.until(END)
    assert ("alert.opened", "median", "software 2", "Vehicle.Speed") in told
    assert ("alert.opened", "refused", "software 2", "malformed_body") in told
    assert {cohort for _, _, cohort, _ in told} == {"software 2"}
    [speed] = [one for one in watched.told if one["kind"] == "median"]
    assert (speed["tenant"], speed["vehicles"]) == (tenant, VEHICLES // 2)
    assert 95 < speed["before"] < 105
    assert 57 < speed["after"] < 67
    again = Watched(engine)
    again.watcher.look_until(START_MS + END * LOOK_MS)
    assert again.told == []
    assert {alert.key for alert in again.alerts.now_open()} == {alert.key for alert in watched.alerts.now_open()}
    sql = "SELECT count() FROM usual WHERE tenant = 'watched' AND kind = 'median' AND looks >= 30"
    [[kept]] = engine.rows(sql)
    assert int(kept) >= 2  # of the tenant and of each software, at the full hour


def test_a_look_is_bounded_by_its_span(engine: Any, tenant: str) -> None:
    """Nothing is asked of `events`, and of `pulses` only what was received in the span."""
    looks = Watched(engine).watcher._looks
    after_ms = START_MS + 10 * LOOK_MS
    rows = looks.vehicles(after_ms, after_ms + LOOK_MS)
    assert sorted(rows["vehicle_id"]) == sorted(f"v{vehicle}" for vehicle in range(VEHICLES))
    assert set(rows["epoch"].tolist()) == {1}
    signals = looks.signals(after_ms - 2 * LOOK_MS, after_ms - LOOK_MS, after_ms)
    [speed] = [row for row, number in enumerate(signals.columns["signal"].tolist()) if number == 1
               and not signals.columns["all_tenants"][row] and signals.columns["all_software"][row]]  # fmt: skip
    assert [int(signals.columns[name][speed]) for name in ("pulses", "vehicles", "fresh")] == [
        2 * VEHICLES,
        VEHICLES,
        VEHICLES,
    ]
    assert 95 < signals.shape[speed][9] < 105
