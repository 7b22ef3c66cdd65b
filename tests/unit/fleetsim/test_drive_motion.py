"""How the simulated fleet moves: position, speed, acceleration and heading agree, and keep to limits."""

from __future__ import annotations

import numpy as np
import pytest

from fleetsim.drive import Fleet
from fleetsim.drive.kinds import KINDS, Array
from fleetsim.drive.moves import Motion
from fleetsim.drive.regions import METRES_PER_DEGREE, metres_per_longitude
from fleetsim.signals import BY_NUMBER

TUESDAY_MORNING = 1_767_682_800_000  # 2026-01-06, 07:00 UTC
SECONDS = 120
SPEED, ODOMETER, ACCELERATION, SIDEWAYS, YAW, LATITUDE, LONGITUDE, HEADING, HDOP = 1, 2, 3, 4, 6, 7, 8, 10, 12


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """Six hundred vehicles on a working morning; `drive` has moved it two minutes on."""
    return Fleet(600, TUESDAY_MORNING, seed=3)


@pytest.fixture(scope="module")
def drive(fleet: Fleet) -> dict[int, Array]:
    """Two minutes by the second: a row a second, a column a vehicle."""
    rows = []
    for second in range(SECONDS):
        fleet.advance(TUESDAY_MORNING + second * 1_000)
        rows.append(fleet.columns())
    return {number: np.stack([row[number] for row in rows]) for number in rows[0]}


def test_some_drive_and_most_are_parked(drive: dict[int, Array]) -> None:
    """Without this the others would say nothing."""
    moving = (drive[SPEED] > 1).any(axis=0)
    assert 30 < moving.sum() < 200


def test_the_way_on_the_map_is_as_long_as_the_odometer_says(drive: dict[int, Array]) -> None:
    """Each second's chord is a little shorter than the way driven, never longer, but for what rounding adds."""
    north = np.diff(drive[LATITUDE], axis=0) * METRES_PER_DEGREE
    east = np.diff(drive[LONGITUDE], axis=0) * metres_per_longitude(drive[LATITUDE][1:])
    chord, driven = np.hypot(north, east), np.diff(drive[ODOMETER], axis=0) * 1_000
    assert np.abs(chord - driven).max() < 1.3
    assert chord.sum() == pytest.approx(driven.sum(), rel=0.01)


def test_the_way_on_the_map_leads_where_the_heading_points(drive: dict[int, Array]) -> None:
    """Clockwise from north; within a second it may bend."""
    north = np.diff(drive[LATITUDE], axis=0) * METRES_PER_DEGREE
    east = np.diff(drive[LONGITUDE], axis=0) * metres_per_longitude(drive[LATITUDE][1:])
    fast = np.hypot(north, east) > 5
    off = (np.degrees(np.arctan2(east, north)) - drive[HEADING][1:] + 180) % 360 - 180
    assert np.abs(off[fast]).max() < 30
    assert np.abs(off[fast]).mean() < 3


def test_the_odometer_is_the_integral_of_the_speed(drive: dict[int, Array]) -> None:
    """To half a metre a second: between two readings the speed may bend."""
    speed = drive[SPEED] / 3.6
    driven = np.diff(drive[ODOMETER], axis=0) * 1_000
    assert np.abs((speed[:-1] + speed[1:]) / 2 - driven).max() < 1.5
    assert ((speed[:-1] + speed[1:]) / 2).sum() == pytest.approx(driven.sum(), rel=0.005)


def test_the_acceleration_is_what_changes_the_speed(drive: dict[int, Array]) -> None:
    """The mean of two readings, a second apart, is nearly the change in between."""
    change = np.diff(drive[SPEED] / 3.6, axis=0)
    told = (drive[ACCELERATION][:-1] + drive[ACCELERATION][1:]) / 2
    assert np.abs(change - told).max() < 1.1
    moving = drive[SPEED][1:] > 1
    assert np.corrcoef(change[moving], told[moving])[0, 1] > 0.97


def test_the_heading_is_the_integral_of_the_yaw(drive: dict[int, Array]) -> None:
    """Around a corner as well."""
    turned = (np.diff(drive[HEADING], axis=0) + 180) % 360 - 180
    going = (drive[SPEED][:-1] > 1) & (drive[SPEED][1:] > 1)
    told = (drive[YAW][:-1] + drive[YAW][1:]) / 2
    assert np.corrcoef(turned[going], told[going])[0, 1] > 0.95
    assert np.abs(told[going]).sum() == pytest.approx(np.abs(turned[going]).sum(), rel=0.1)


def test_drivers_keep_to_limits(fleet: Fleet, drive: dict[int, Array]) -> None:
    """Speed, acceleration and braking of each kind, and the pull to the side in bends."""
    limits = {kind.name: kind for kind in KINDS}
    top = np.array([limits[name].top_kmh for name in fleet.kind]) * 1.12
    accelerate, brake = (
        np.array([getattr(limits[name], what) for name in fleet.kind]) for what in ("accelerate", "brake")
    )
    assert (drive[SPEED] <= top).all()
    assert (drive[ACCELERATION] <= accelerate * 1.16 + 0.001).all()
    assert (drive[ACCELERATION] >= -brake - 0.001).all()
    assert np.abs(drive[SIDEWAYS]).max() < 5.0


def test_the_fix_gets_better_and_worse_on_the_way(drive: dict[int, Array]) -> None:
    """A receiver that says one thing all the time would be a broken one."""
    under_way = (drive[SPEED] > 5).mean(axis=0) > 0.6
    assert (np.ptp(drive[HDOP][:, under_way], axis=0) > 0).mean() > 0.8


def test_values_lie_within_the_catalogue(drive: dict[int, Array]) -> None:
    """No value is out of its bounds, and none changes faster than a sensor would be doubted for."""
    wrong = []
    for number, values in drive.items():
        signal = BY_NUMBER[number]
        assert signal.low is not None
        assert signal.high is not None
        good = np.isfinite(values).all() and (values >= signal.low).all() and (values <= signal.high).all()
        if signal.rate is not None:
            good = good and (np.abs(np.diff(values, axis=0)) <= signal.rate).all()
        if not good:
            wrong.append(signal.path)
    assert wrong == []


@pytest.mark.parametrize("parts", [1, 7, 400])
def test_a_move_ends_at_the_same_place_however_it_is_looked_at(parts: int) -> None:
    """Braking in a bend: way, speed and heading are exact, the position nearly."""
    zero, which = np.zeros(1), np.array([0])
    motion = Motion(zero + 48.0, zero + 11.0, zero + 500, zero + 10.0, 0.0)
    motion.speed[:] = 14.0
    motion.begin(which, zero + 4.0, zero + 9.0, zero + 80.0)
    for part in range(parts):
        motion.advance(which, np.array([9_000.0 * (part + 1) / parts]))
    assert (motion.speed[0], motion.heading[0], motion.at_ms[0]) == (pytest.approx(4.0), pytest.approx(90.0), 9_000.0)
    assert motion.odometer_m[0] == pytest.approx((14 + 4) / 2 * 9)
    north, east = (motion.latitude[0] - 48) * METRES_PER_DEGREE, (motion.longitude[0] - 11) * 74_490
    assert np.hypot(north, east) == pytest.approx(71.7, abs=0.3)
