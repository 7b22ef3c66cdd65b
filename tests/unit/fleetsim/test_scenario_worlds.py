"""What a scenario does to its world: who is struck, from when on, and what is true of it; nobody connects for that."""

from __future__ import annotations

import dataclasses
import random
from itertools import pairwise

import numpy as np
import pytest
from tests.unit.fleetsim.bench import START_MS
from tests.unit.fleetsim.gate_double import make_pki

from fleetsim.bundle import Bundle, read_bundle
from fleetsim.clock import Clock, virtual_clock
from fleetsim.encode import Event
from fleetsim.gate import Gate, InputError
from fleetsim.outbox import Draft
from fleetsim.scenarios import catalogue, healthy, readings
from fleetsim.scenarios.disorders import ALL
from fleetsim.scenarios.world import World
from fleetsim.vehicles import Vehicles, generator

VEHICLES = 80
NOWHERE = Gate(("127.0.0.1", 9), ("127.0.0.1", 9), "localhost")
BEGINS_LATER = {"clone", "replay-ring", "slow-probe", "bad-release"}
"""Scenarios whose truth begins with a device's first message of its own."""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Many names on one certificate: nobody connects."""
    directory = tmp_path_factory.mktemp("pki") / "made"
    make_pki(directory)
    bundle = read_bundle(directory / "device")
    return [dataclasses.replace(bundle, device_id=f"car-{number}") for number in range(VEHICLES)]


def world_of(name: str, bundles: list[Bundle]) -> World:
    scenario = catalogue.find(name)
    world = World(NOWHERE, bundles, Clock(START_MS), 1, scenario.pace)
    scenario.play(world)
    return world


@pytest.mark.parametrize("name", catalogue.SCENARIOS)
def test_every_scenario_says_what_is_true_of_it(bundles: list[Bundle], name: str) -> None:
    """Its facts name devices there are, honest ones that are struck from the trouble on; fleet-wide ones want an
    alert, an ordinary day none."""
    world = world_of(name, bundles)
    names = {bundle.device_id for bundle in bundles}
    assert bool(world.truth.facts) == (name not in BEGINS_LATER)
    assert all(fact.device_id in names and not fact.hostile for fact in world.truth.facts)
    assert bool(world.truth.alerts) == (name not in BEGINS_LATER | {"healthy-day", "disorders"})
    assert all(due.from_ms == world.trouble_ms for due in world.truth.alerts)


@pytest.mark.parametrize("name", ["unit-mixup", "sensor-stuck", "clock-wave", "bad-release", "silent-region"])
def test_a_fleet_too_small_for_the_alert_that_is_due_is_refused(bundles: list[Bundle], name: str) -> None:
    """Where those that the trouble befalls are known; the scenario says how many vehicles are enough."""
    scenario = catalogue.find(name)
    says = f"{name} needs at least .* of 30 it befalls .*: take {scenario.least_vehicles} vehicles or more"
    with pytest.raises(InputError, match=says):
        catalogue.run(scenario, scenario.pace, NOWHERE, bundles[:30], Clock(START_MS), 1)
    assert scenario.least_vehicles <= scenario.pace.vehicles


def test_an_ordinary_day_has_two_percent_of_each_disorder_and_nobody_has_two(bundles: list[Bundle]) -> None:
    """In a fleet of 80 that is two of each kind, over whichever transport they speak."""
    facts = world_of("healthy-day", bundles).truth.facts
    kinds = [fact.what.rpartition("_")[0] for fact in facts]
    assert {kind: kinds.count(kind) for kind in ALL} == dict.fromkeys(ALL, 2)
    assert len({fact.device_id for fact in facts}) == len(facts)


def test_few_cars_drive_at_night_and_many_in_the_rush() -> None:
    """At each hour about as many as the rhythm says."""
    rng = random.Random(1)
    days = [list(healthy.drives(rng, healthy.DAY_S)) for _ in range(1_000)]
    for hour in (3, 8, 13, 17, 22):
        at_s = (hour - healthy.FIRST_HOUR) % 24 * 3600.0 + 1.0
        driving = sum(any(from_s <= at_s < until_s for from_s, until_s in day) for day in days) / len(days)
        assert driving == pytest.approx(healthy.RHYTHM[hour], abs=0.12)
    assert all(until_s <= next_s for day in days for (_, until_s), (next_s, _) in pairwise(day))


def test_a_changed_signal_is_changed_in_every_event_that_has_it() -> None:
    """By number or by path; the rest of the message stays."""
    path = "Vehicle.Speed"
    events = (
        Event(0, "sample", {1: 100.0, 13: 50.0}, {}),
        Event(1, "sample", {path: 10.0}, {}),
        Event(2, "heartbeat", {}, {}),
    )
    changed = readings.with_values(readings.SPEED, lambda value: value * 2)(Draft("s", "c", 1, events))
    assert [event.signals for event in changed.events] == [{1: 200.0, 13: 50.0}, {path: 20.0}, {}]
    assert (changed.software, changed.events[2].kind) == ("s", "heartbeat")


def test_the_clock_of_a_scenario_is_written_as_the_gates_is() -> None:
    """Start, speed and origin; two processes with the same three agree."""
    clock = virtual_clock("5000,100,0")
    assert clock.speed == 100.0
    assert clock.now_ms() <= virtual_clock("5000,100,0").now_ms() <= clock.now_ms()
    with pytest.raises(ValueError, match="soon"):
        virtual_clock("soon,2")


def test_a_settled_fleet_stays_as_it_is() -> None:
    """Medians of an ordinary fleet do not drift within half an hour: what the watch sees is the scenario."""
    physics = Vehicles(300, generator(2))
    physics.settle()

    def quartiles() -> dict[int, tuple[float, float, float]]:
        seen: dict[int, list[float]] = {}
        for _ in range(20):
            physics.step(3.0)
            for number, values in physics.sample().items():
                seen.setdefault(number, []).extend(values.tolist())
        return {number: tuple(np.percentile(values, (25, 50, 75))) for number, values in seen.items()}

    before = quartiles()
    physics.step(1800.0)
    after = quartiles()
    for number, (low, middle, high) in before.items():
        assert abs(after[number][1] - middle) <= 0.2 * (high - low) + 0.01, number
