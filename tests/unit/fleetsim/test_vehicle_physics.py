"""The simulated vehicles: plausible by the catalogue, consistent in themselves, and said in every encoding."""

from __future__ import annotations

import random
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fleetsim import encode, vehicles
from fleetsim.outbox import Draft
from fleetsim.signals import BY_NUMBER, CATALOGUE
from fleetsim.traffic import STEPS, Fleet

STEP_S = 0.05
N = 40


@pytest.fixture(scope="module")
def drive() -> list[dict[int, vehicles.Array]]:
    """Five minutes of forty vehicles."""
    fleet = vehicles.Vehicles(N, vehicles.generator(7))
    samples = []
    for _ in range(int(300 / STEP_S)):
        fleet.step(STEP_S)
        samples.append(fleet.sample())
    return samples


def test_the_catalogue_is_the_projects() -> None:
    """The vehicle's own table of signals agrees with schemas/signals.toml."""
    path = Path(__file__).parents[3] / "schemas" / "signals.toml"
    rows = tomllib.loads(path.read_text())["signal"]
    theirs = [(r["number"], r["path"], r["unit"], r.get("min"), r.get("max"), r.get("rate")) for r in rows]
    assert [tuple(signal) for signal in CATALOGUE] == theirs


def test_values_lie_within_the_catalogue(drive: list[dict[int, vehicles.Array]]) -> None:
    """No value is beyond its signal's bounds, or not finite."""
    outside = []
    for number in drive[0]:
        values = np.stack([sample[number] for sample in drive])
        low, high = BY_NUMBER[number].low, BY_NUMBER[number].high
        assert low is not None
        assert high is not None
        if not (np.isfinite(values) & (values >= low) & (values <= high)).all():
            outside.append(BY_NUMBER[number].path)
    assert outside == []


def test_changes_lie_within_the_rates(drive: list[dict[int, vehicles.Array]]) -> None:
    """No value changes faster than its signal may, even with times that are a millisecond off."""
    fast = []
    for number in drive[0]:
        rate = BY_NUMBER[number].rate
        values = np.stack([sample[number] for sample in drive])
        if rate is not None and (np.abs(np.diff(values, axis=0)) / (STEP_S - 0.001) > rate).any():
            fast.append(BY_NUMBER[number].path)
    assert fast == []


def test_vehicles_stop_and_drive(drive: list[dict[int, vehicles.Array]]) -> None:
    """The drive cycle has stops, towns and roads in it."""
    speed = np.stack([sample[1] for sample in drive])
    assert (speed.min(), speed.max() > 70, 0.03 < (speed == 0).mean() < 0.5) == (0.0, True, True)


def test_the_odometer_follows_the_speed(drive: list[dict[int, vehicles.Array]]) -> None:
    """Kilometres driven are the integral of the speed."""
    hours = STEP_S / 3600
    driven = sum(sample[1] for sample in drive) * hours
    counted = drive[-1][2] - drive[0][2]
    assert np.abs(driven - counted).max() < 0.05


def test_the_position_follows_speed_and_heading(drive: list[dict[int, vehicles.Array]]) -> None:
    """A second's way on the map is as long as the speed says."""
    steps = int(1 / STEP_S)
    first, last = drive[1000], drive[1000 + steps]
    north = (last[7] - first[7]) * vehicles.METRES_PER_DEGREE
    east = (last[8] - first[8]) * vehicles.METRES_PER_DEGREE * np.cos(np.radians(first[7]))
    driven = (last[2] - first[2]) * 1000
    assert np.abs(np.hypot(north, east) - driven).max() < 1.5


def test_driving_empties_the_battery(drive: list[dict[int, vehicles.Array]]) -> None:
    """The fleet uses between 8 and 40 kWh on 100 km."""
    energy_kwh = (drive[0][13] - drive[-1][13]).sum() / 100 * vehicles.PACK_WH / 1000
    km = (drive[-1][2] - drive[0][2]).sum()
    assert 8 < energy_kwh / km * 100 < 40


def test_the_same_seed_drives_the_same_way() -> None:
    """A run can be repeated."""

    def last() -> list[float]:
        fleet = vehicles.Vehicles(5, vehicles.generator(3))
        for _ in range(100):
            fleet.step(STEP_S)
        return [float(value) for value in fleet.latitude]

    assert last() == last()


def test_the_fleet_speaks_every_encoding() -> None:
    """Twenty vehicles use all three encodings, names by number and by path, and one to ten events a message."""
    spoken = _talk(20, rounds=12)
    encodings = {draft.enc for _, draft in spoken}
    by_path = {isinstance(next(iter(e.signals)), str) for _, d in spoken for e in d.events if e.signals}
    sizes = {len(draft.events) for _, draft in spoken}
    assert (encodings, by_path, min(sizes) >= 1, max(sizes) <= STEPS) == ({1, 2, 3}, {True, False}, True, True)


def test_event_times_of_a_vehicle_only_grow() -> None:
    """No event is said twice, and none lies before an earlier one."""
    times: dict[int, list[int]] = {}
    for index, draft in _talk(20, rounds=12):
        times.setdefault(index, []).extend(event.at for event in draft.events)
    assert all(a < b for said in times.values() for a, b in pairwise(said))


def test_every_draft_can_be_said_and_read_back() -> None:
    """What the traffic makes fits its encoding without loss."""
    for _, draft in _talk(20, rounds=12):
        now = draft.events[-1].at
        events = [encode.Event(e.at - now, e.kind, e.signals, e.texts) for e in draft.events]
        body = encode.Body(draft.software, draft.config, events)
        assert encode.decode_body(draft.enc, encode.encode_body(draft.enc, body)) == body


def _talk(n: int, rounds: int) -> list[tuple[int, Draft]]:
    fleet = Fleet(n, vehicles.Vehicles(n, vehicles.generator(5)), random.Random(5))
    said: list[tuple[int, Draft]] = []
    for step in range(1, rounds * STEPS + 1):
        said += fleet.step(1_767_225_600_000 + step * 50.0, STEP_S)
    return said
