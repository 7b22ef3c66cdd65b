"""One look in values, from vehicles as ClickHouse tells of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fleetgate.load.watch.cohorts import Cohort
from fleetgate.load.watch.fleet import FORGET_MS, Fleet
from fleetgate.load.watch.looks import LEVELS, SignalRows
from fleetgate.load.watch.measures import LOOK_MS, Measure, Span, measures, window_ms
from fleetgate.load.watch.usual import Shapes

VEHICLES = 40
START_MS = 1_700_000_000_000
ACME, OLD, NEW = Cohort("acme"), Cohort("acme", "1"), Cohort("acme", "2")
HERE = Cohort("acme", cell=(96, 23))
NO_SIGNALS = SignalRows(
    {
        **{name: [] for name in ("tenant", "software", "config")},
        **{name: np.empty(0, np.int64) for name in ("signal", "all_tenants", "all_software", "all_config")},
    },
    np.empty((0, len(LEVELS))),
)
NO_REFUSALS: dict[str, list[Any]] = {name: [] for name in ("tenant", "device_id", "reason", "refused")}


class Road:
    """Forty vehicles, each heard every ten seconds; every second runs the newer software."""

    def __init__(self) -> None:
        self.fleet = Fleet()
        self.now_ms = START_MS
        self.sent = np.zeros(VEHICLES, np.int64)

    def drive(self, looks: int = 1, *, silent: range = range(0), **other: Any) -> None:
        """`other` are columns of all vehicles, as arrays or one number for all."""
        for _ in range(looks):
            after_ms, self.now_ms = self.now_ms, self.now_ms + LOOK_MS
            self.sent += 1
            who = np.array([vehicle for vehicle in range(VEHICLES) if vehicle not in silent])
            columns: dict[str, Any] = {
                **dict.fromkeys(("epoch", "pulses", "messages", "located"), 1),
                **dict.fromkeys(("faults", "unknown", "implausible", "held"), 0),
                "events": 5,
                "readings": 20,
                "delay_ms": 50,
                "first_seq": self.sent,
                "last_seq": self.sent,
                "last_ms": self.now_ms - 1,
                "place_ms": self.now_ms - 9,
                "latitude": 48.1,
                "longitude": 11.6,
                **other,
            }
            heard = {name: np.broadcast_to(np.asarray(value), VEHICLES)[who] for name, value in columns.items()}
            names = {
                "tenant": ["acme"] * len(who),
                "vehicle_id": [f"v{i}" for i in who],
                "device_id": [f"v{i}-tcu" for i in who],
                "software": ["12"[i % 2] for i in who],
                "config": ["c"] * len(who),
            }
            self.fleet.take(names | heard, after_ms, self.now_ms)

    def measured(self, refusals: Any = NO_REFUSALS) -> dict[tuple[str, Cohort], Measure]:
        span = Span(self.now_ms, window_ms(self.fleet), 600_000)
        found = measures(self.fleet, NO_SIGNALS, refusals, {}, Shapes(len(LEVELS)), span)
        return {(one.kind, one.cohort): one for one in found}


@pytest.fixture
def road() -> Road:
    made = Road()
    made.drive(12)
    return made


def test_a_fleet_without_trouble(road: Road) -> None:
    """Its rate, that all of it reports something, and nothing else; cohorts of less than 20 vehicles are none."""
    found = road.measured()
    assert np.exp(found["event_rate", ACME].value) == pytest.approx(5 / 10, rel=0.01)
    assert {one.value for key, one in found.items() if key[0] == "signal_presence"} == {1.0}
    assert {one.value for key, one in found.items() if key[0] not in ("event_rate", "signal_presence")} == {0.0}
    everybody = {Cohort("", software) for software in "12"}
    assert {cohort for _, cohort in found} == everybody | {
        ACME,
        OLD,
        NEW,
        HERE,
        *(one._replace(config="c") for one in (OLD, NEW)),
    }
    assert window_ms(road.fleet) == 30_000


@pytest.mark.parametrize(
    ("other", "kind", "share"),
    [
        ({"delay_ms": np.where(np.arange(VEHICLES) < 10, -40_000, 50)}, "clock_skew", 0.25),
        ({"delay_ms": np.where(np.arange(VEHICLES) < 10, 70_000, 50)}, "clock_skew", 0.25),
        ({"faults": 1}, "faults", 0.2),
        ({"unknown": 5}, "unknown_signals", 1.0),
        ({"implausible": 4}, "implausible", 0.2),
    ],
)
def test_shares_of_what_was_heard(road: Road, other: dict[str, Any], kind: str, share: float) -> None:
    """Of vehicles, of events and of readings."""
    road.drive(3, **other)
    assert road.measured()[kind, ACME].value == share


def test_numbers_that_do_not_come_are_gaps(road: Road) -> None:
    """Devices that skip three numbers, and then begin a new epoch, which has no gap."""
    road.drive(1, first_seq=road.sent + 4, last_seq=road.sent + 4)
    road.drive(1, epoch=2, first_seq=0, last_seq=0)
    gaps = road.measured()["gaps", ACME]
    assert gaps.value == pytest.approx(3 / 6)  # of three looks, 3 of 6 numbers of each
    assert gaps.about == VEHICLES


def test_gaps_are_about_the_vehicles_that_have_them(road: Road) -> None:
    """One that lost a hundred numbers is a great share of all that is missing, and no trouble of the fleet."""
    road.drive(1, last_seq=np.where(np.arange(VEHICLES) < 1, road.sent + 100, road.sent + 1))
    gaps = road.measured()["gaps", ACME]
    assert gaps.value > 0.3
    assert gaps.about == 1


def test_a_backlog_leaves_no_gap_behind(road: Road) -> None:
    """What came late, and the message after it, which goes on from the newest."""
    newest = int(road.sent[0])
    road.drive(1, first_seq=newest - 5, last_seq=newest - 5)
    road.drive(1, first_seq=newest + 1, last_seq=newest + 1)
    assert road.measured()["gaps", ACME].value == 0.0


def test_the_rate_of_one_vehicle_is_not_that_of_its_cohort(road: Road) -> None:
    """One sends the backlog of an hour: the rate doubles, by chance of that size. All sending twice as much is none."""
    usual = road.measured()["event_rate", ACME].value
    road.drive(3, events=np.where(np.arange(VEHICLES) < 1, 5 * (VEHICLES + 1), 5))
    one = road.measured()["event_rate", ACME]
    assert [one.value - usual, one.noise] == pytest.approx([np.log(2), 0.5], abs=0.02)
    road.drive(3, events=10)
    every = road.measured()["event_rate", ACME]
    assert [every.value - usual, every.noise] == pytest.approx([np.log(2), 0.16], abs=0.02)


def test_who_reports_nothing_lacks_every_signal_and_who_is_held_none(road: Road) -> None:
    """What vehicles in quarantine report is not kept: nobody can say that they lost a signal."""
    road.drive(3, readings=np.where(np.arange(VEHICLES) < 10, 0, 20))
    some = road.measured()["signal_presence", ACME]
    assert (some.value, some.size, some.about) == (0.75, 40, 30)
    road.drive(3, readings=np.where(np.arange(VEHICLES) < 10, 0, 20), held=np.arange(VEHICLES) < 10)
    others = road.measured()["signal_presence", ACME]
    assert (others.value, others.size, others.about) == (1.0, 30, 30)


def test_the_rate_is_that_of_each_vehicle(road: Road) -> None:
    """A fleet of which a quarter falls asleep sends less and no less often, once nobody waits for those any more."""
    road.drive(20, silent=range(10))
    rate = road.measured()["event_rate", ACME]
    assert (np.exp(rate.value), rate.about) == (pytest.approx(5 / 10, rel=0.01), 30)


def test_who_is_overdue_is_silent_and_who_was_away_for_long_is_not(road: Road) -> None:
    """1.5 of the own interval and 5 s; two and a half minutes later nobody expects it any more."""
    road.drive(1, silent=range(10))
    assert road.measured()["silent", ACME].value == 0.0
    road.drive(2, silent=range(10))
    found = road.measured()
    assert (found["silent", ACME].value, found["silent", HERE].about) == (0.25, 10)
    since_ms = road.now_ms
    assert road.fleet.known_in(ACME, since_ms) == 40
    road.drive(13, silent=range(10))
    assert road.measured()["silent", ACME].value == 0.0
    assert [road.fleet.known_in(HERE, at_ms) for at_ms in (since_ms, road.now_ms)] == [10, 30]
    road.drive(1)
    assert road.fleet.known_in(HERE, since_ms) == 0


def test_who_speaks_seldom_is_known_for_longer(road: Road) -> None:
    """Three of its intervals: a car that speaks every five minutes is not parked when it is overdue."""
    road.fleet.column("interval_ms")[:10] = 300_000
    since_ms = road.now_ms + 460_000
    road.drive(46, silent=range(10))
    assert road.measured()["silent", ACME].value == 0.25
    assert road.fleet.known_in(ACME, since_ms) == 40
    road.drive(60, silent=range(10))
    assert [road.fleet.known_in(ACME, at_ms) for at_ms in (since_ms, road.now_ms)] == [10, 30]


def test_a_jump_is_told_of_the_cell_that_was_left(road: Road) -> None:
    """Half of them are at an airport at once; the others of the cell tell how many did not jump."""
    road.drive(2, latitude=np.where(np.arange(VEHICLES) < 20, 53.0, 48.1))
    jumped = road.measured()["position_jumps", HERE]
    assert (jumped.value, jumped.size, jumped.about) == (0.5, VEHICLES, 20)
    road.drive(7, latitude=np.where(np.arange(VEHICLES) < 20, 53.0, 48.1))
    assert road.measured()["position_jumps", HERE].value == 0.0


def test_refusals_are_told_of_the_software_that_the_device_runs(road: Road) -> None:
    """And of none that does not; a device that nobody heard of counts for its tenant."""
    devices = [*(f"v{vehicle}-tcu" for vehicle in range(1, 20, 2)), "stranger"]
    told = {"tenant": ["acme"] * 11, "device_id": devices, "reason": ["bad_mac"] * 11, "refused": [6] * 11}
    found = road.measured(told)
    assert found["refused", NEW].value == 60 / (60 + 60)
    assert (found["refused", OLD].value, found["refused", ACME].about) == (0.0, 11)
    assert found["refused", ACME].value == pytest.approx(66 / (66 + 120))


def test_who_is_not_heard_of_for_an_hour_is_forgotten(road: Road) -> None:
    """And those that stay are the same vehicles under other places."""
    road.drive(4, silent=range(10))
    road.fleet.column("last_ms")[:10] -= FORGET_MS
    road.fleet.forget(road.now_ms)
    assert (len(road.fleet), road.fleet.vehicle_of("acme", "v5-tcu")) == (30, None)
    road.drive(1, silent=range(10))
    assert len(road.fleet) == 30
    assert road.measured()["event_rate", ACME].about == 30


def test_who_is_recalled_is_known_and_belongs_to_no_look(road: Road) -> None:
    """By what was heard before the looks began: how often they spoke, where they were and when."""
    until_ms = road.now_ms
    numbers: dict[str, int] = dict.fromkeys(("pulses", "messages", "epoch", "first_seq", "last_seq", "located"), 13)
    numbers |= {"first_ms": until_ms - 120_000, "last_ms": until_ms, "place_ms": until_ms, "delay_ms": 0, "held": 0}
    texts = {"tenant": "acme", "software": "1", "config": "c"}
    ids = [f"v{i}" for i in range(VEHICLES)]
    rows: dict[str, Any] = {name: [text] * VEHICLES for name, text in texts.items()}
    rows |= {"vehicle_id": ids, "device_id": ids, "latitude": np.full(VEHICLES, 48.1)}
    rows |= {"longitude": np.full(VEHICLES, 11.6), **{name: np.full(VEHICLES, n) for name, n in numbers.items()}}
    again = Road()
    again.now_ms, again.sent = until_ms, np.full(VEHICLES, 13)
    again.fleet.recall(rows)
    assert set(again.fleet.column("interval_ms")) == {10_000}
    again.drive(3, silent=range(10))
    assert again.fleet.known_in(HERE, until_ms) == 10
    assert again.measured()["silent", ACME].value == 0.25
    assert again.fleet.heard_after(0).messages.sum() == 90
