"""The watch on a real ClickHouse: pulses and refusals in, alerts out, and what a restart makes of it."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry

from fleetgate.catalogue import catalogue
from fleetgate.clock import SystemClock
from fleetgate.control.watchturns import Turn
from fleetgate.errors import ClickHouseAway
from fleetgate.load.alerts import Alerts
from fleetgate.load.arrow import DAY_MS, MILLISECONDS
from fleetgate.load.counts import Counts
from fleetgate.load.watch.changes import Opening
from fleetgate.load.watch.cohorts import Cohort
from fleetgate.load.watch.kinds import Series
from fleetgate.load.watch.looks import _FINE, Looks
from fleetgate.load.watch.measures import LOOK_MS, signal_keys
from fleetgate.load.watch.telling import alert_of
from fleetgate.load.watch.turn import Turns
from fleetgate.load.watch.usual import LEAST_LOOKS, LOOKS
from fleetgate.load.watch.watcher import HOUR_MS, Watcher

VEHICLES = 60
TROUBLE = LEAST_LOOKS + 3
END = TROUBLE + 6
# An hour ago, so that a full hour lies among the looks, and no other test's rows.
START_MS = SystemClock().now_ms() // HOUR_MS * HOUR_MS - HOUR_MS - (TROUBLE - 2) * LOOK_MS
LONG_AGO_MS = START_MS - 6 * HOUR_MS

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


def alone() -> Turns:
    """No other load is there."""
    return Turns(lambda: "spool", lambda: None, lambda spool, until_ms, _: [Turn(spool, 1, until_ms, True)])


class Watched:
    """A watch as a new process has it."""

    def __init__(self, engine: Any, turns: Turns | None = None, writing: Any = None) -> None:
        writing = writing or engine
        counts = Counts(CollectorRegistry())
        self.told: list[dict[str, Any]] = []
        self.looked = 0
        self.alerts = Alerts(writing, counts, SystemClock(), [lambda event: self.told.append(dict(event))])
        self.watcher = Watcher(engine, writing, self.alerts, catalogue(), counts, SystemClock(), turns or alone())

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


def test_a_silence_goes_on_after_a_restart_though_it_began_before_what_is_looked_at_again(engine: Any) -> None:
    """An outage of forty minutes, of all or of half of a tenant: that nothing is heard of who fell silent before the
    looks of the start is no sign that they are back. When they are, the alert closes."""
    rng = random.Random(3)
    looks = LOOKS + 60
    for name, others in (("dark", range(0)), ("half-dark", range(VEHICLES // 2))):
        heard = [(look, vehicle) for look in range(12) for vehicle in range(VEHICLES)]
        heard += [(look, vehicle) for look in range(12, looks) for vehicle in others]
        heard += [(look, vehicle) for look in range(looks, looks + 8) for vehicle in range(VEHICLES)]
        rows = [pulse(name, vehicle, look, LONG_AGO_MS + look * LOOK_MS, rng) for look, vehicle in heard]
        engine.insert("pulses", table(rows, TYPES), f"{name}-pulses")
        series = Series("silent", Cohort(name), "")
        since_ms = LONG_AGO_MS + 14 * LOOK_MS
        opening = Opening(series, 0.0, 1.0, 0.0, VEHICLES - len(others), since_ms)
        Watched(engine).alerts.open(alert_of(opening, since_ms + LOOK_MS))
    watched = Watched(engine)
    for look in range(looks - 10, looks):
        watched.watcher.look_until(LONG_AGO_MS + look * LOOK_MS)
    assert watched.told == []
    for look in range(looks, looks + 8):
        watched.watcher.look_until(LONG_AGO_MS + look * LOOK_MS)
    told = [(event["event"], event["tenant"]) for event in watched.told if event["kind"] == "silent"]
    assert sorted(told) == [("alert.closed", "dark"), ("alert.closed", "half-dark")]


class Faltering:
    """A ClickHouse that is away for one of the statements of a look, each in its turn."""

    def __init__(self, clickhouse: Any) -> None:
        self._clickhouse = clickhouse
        self.asked, self.away_at = 0, 0

    def __getattr__(self, name: str) -> Any:
        def asked(*args: Any) -> Any:
            self.asked += 1
            if self.asked == self.away_at:
                raise ClickHouseAway("for a moment")
            return getattr(self._clickhouse, name)(*args)

        return asked


class Lossy:
    """A ClickHouse whose answer to each alert's first try is lost, and whose clock goes on meanwhile."""

    def __init__(self, clickhouse: Any) -> None:
        self._clickhouse = clickhouse
        self.tried = dict[str, int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clickhouse, name)

    def insert(self, name: str, rows: pa.Table, token: str) -> None:
        self._clickhouse.insert(name, rows, token)
        if name != "alerts":
            return
        [key] = rows.column("key").to_pylist()
        self.tried[key] = self.tried.get(key, 0) + 1
        if self.tried[key] == 1:
            time.sleep(0.002)
            raise ClickHouseAway("the connection broke before the answer came")


def test_an_alert_of_which_the_answer_was_lost_is_the_same_at_the_next_try(engine: Any, tenant: str) -> None:
    """Else it would be two: one that was told, and one that nobody closes."""
    engine.command("TRUNCATE TABLE alerts")
    lossy = Lossy(engine)
    watched = Watched(engine, writing=lossy)
    for look in range(1, END + 1):
        with suppress(ClickHouseAway):
            watched.watcher.look_until(START_MS + look * LOOK_MS)
        while watched.watcher.untold:
            with suppress(ClickHouseAway):
                watched.watcher.tell()
    assert lossy.tried
    assert set(lossy.tried.values()) == {2}
    sql = "SELECT DISTINCT alert_id FROM alerts WHERE tenant = {tenant:String}"
    there = {alert_id for [alert_id] in engine.rows(sql, {"tenant": tenant})}
    assert there == {event["alert_id"] for event in watched.told}


def test_the_turn_goes_to_another_load_with_what_is_open(engine: Any, tenant: str) -> None:
    """It reads the alerts when its turn begins: what the first one opened meanwhile it neither opens again nor forgets
    to close; and the first one is silent from then on."""
    said = {"first": [Turn("first", 1, None, True)], "second": [Turn("first", 1, None, True)]}
    at_ms = START_MS + TROUBLE * LOOK_MS
    now_s = [0.0]

    def load(name: str) -> Watched:
        return Watched(engine, Turns(lambda: name, lambda: at_ms, lambda *_: said[name], lambda: now_s[0]))

    first, second = load("first"), load("second")
    engine.command("TRUNCATE TABLE alerts")
    second.alerts.now_open()  # as load does for the alerts of its own edge
    first.until(TROUBLE)
    while at_ms < START_MS + (END - 1) * LOOK_MS:
        at_ms += LOOK_MS
        for one in (first, second):
            one.watcher.step()
    assert {event["event"] for event in first.told} == {"alert.opened"}
    assert second.told == []
    now_s[0] += 60
    said |= {
        "first": [Turn("first", 9, None, False), Turn("second", 2, None, True)],
        "second": [Turn("second", 2, None, True)],
    }
    told, at_ms = len(first.told), START_MS + END * LOOK_MS
    for one in (first, second):
        one.watcher.step()
    assert (len(first.told), second.told) == (told, [])
    assert {alert.key for alert in second.alerts.now_open()} == {event["key"] for event in first.told}


def test_a_look_that_failed_on_the_way_is_made_once(engine: Any, tenant: str) -> None:
    """Whichever of its questions ClickHouse did not answer: what was heard counts once when it is made again."""
    watched = Watched(engine)
    watched.watcher.look_until(START_MS + 10 * LOOK_MS)
    faltering: Any = Faltering(engine)
    watched.watcher._looks = Looks(faltering)
    for failing in (1, 2, 3):
        faltering.asked, faltering.away_at = 0, failing
        with pytest.raises(ClickHouseAway):
            watched.watcher.look_until(START_MS + 11 * LOOK_MS)
    watched.watcher.look_until(START_MS + 11 * LOOK_MS)
    step = watched.watcher._fleet.heard_after(START_MS + 10 * LOOK_MS)
    assert (step.seconds, step.messages.sum()) == (LOOK_MS / 1000, VEHICLES)


def test_an_hour_is_begun_once(engine: Any, tenant: str) -> None:
    """What is read at the full hour is asked before anything is forgotten: who asks again has forgotten nothing."""
    watched = Watched(engine)
    watched.until(TROUBLE - 3)
    watcher = watched.watcher
    faltering: Any = Faltering(engine)
    watcher._reading, shapes = faltering, dict(watcher._shapes._places)
    for failing in (1, 2):
        faltering.asked, faltering.away_at = 0, failing
        with pytest.raises(ClickHouseAway):
            watched.until(TROUBLE - 1)
    assert watcher._shapes._places == shapes
    watched.until(TROUBLE - 1)
    assert faltering.asked == 4
    assert watcher._shapes._places == shapes


@pytest.mark.parametrize("hour", [0, 8])
@pytest.mark.parametrize(("days", "known"), [(1, False), (2, True)])
def test_one_night_is_one_day(engine: Any, hour: int, days: int, known: bool) -> None:
    """An hour and the one before it are of one day, at midnight too: a day that had both is no habit."""
    today = START_MS // DAY_MS * DAY_MS // 1000 + hour * 3600
    name = f"at {hour} for {days}"
    hours = [today - day * 86_400 - before for day in range(1, days + 1) for before in (0, 3600)]
    same = {"tenant": name, "kind": "refused", "cohort": "", "signal": "bad_mac", "middle": 0.2, "scatter": 0.01}
    table = {key: pa.array([value] * len(hours)) for key, value in same.items()}
    table |= {"looks": pa.array([100] * len(hours), pa.uint32()), "hour": pa.array(hours, pa.uint32())}
    engine.insert("usual", pa.table(table), f"usual-{name}")
    watcher = Watched(engine).watcher
    watcher._new_hour(today * 1000, mute=True)
    assert ((name, "refused", "", "bad_mac") in watcher._judge._days) is known


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


def test_names_that_a_device_makes_up_cost_no_more_than_one(engine: Any) -> None:
    """A few devices may call their software something else with each message, at hundreds of messages a second: they
    count for their tenant, and no name of theirs is a cohort."""
    rng, at_ms = random.Random(2), START_MS - HOUR_MS
    pulses = [pulse("inventive", vehicle, 1, at_ms, rng) for vehicle in range(VEHICLES)]
    for number in range(200):
        vehicle = VEHICLES + number % 5
        made_up = pulse("inventive", vehicle, 1, at_ms, rng) | {"record_offset": VEHICLES + number}
        pulses.append(made_up | {"software": f"s{number}", "config": f"c{number}"})
    engine.insert("pulses", table(pulses, TYPES), "inventive-pulses")
    span = {"after": at_ms - 1000, "fresh": at_ms - 1000, "until": at_ms}
    [[groups]] = engine.rows(f"SELECT count() FROM ({_FINE}) WHERE signal = 1", span)
    assert int(groups) == 3
    keys = signal_keys(Watched(engine).watcher._looks.signals(at_ms - 1000, at_ms - 1000, at_ms))
    cohorts = {cohort for cohort, signal in keys if signal == 1}
    named = [Cohort("inventive", software, config) for software in "12" for config in (None, "c")]
    assert cohorts == {Cohort("inventive"), *named, Cohort("", "1"), Cohort("", "2")}
