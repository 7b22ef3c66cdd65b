"""Decides what is noted of a simulated fleet: its trips, who is on the road when, speeds by the second, range, age."""

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from fleetsim.drive import Fleet
from fleetsim.drive.kinds import Array, Flags

SECOND_MS, MINUTE_MS, HOUR_MS = 1_000, 60_000, 3_600_000
SPEED, ACCELERATION, ODOMETER, HDOP, CHARGE, HEALTH, AIR, LATITUDE, LONGITUDE = 1, 3, 2, 12, 13, 14, 40, 7, 8


class Trips(NamedTuple):
    """One entry a trip, from setting out to parking: kind, km, minutes, percent of charge, degrees outside."""

    kind: list[str]
    km: Array
    minutes: Array
    charge: Array
    air: Array

    def of(self, kind: str) -> Flags:
        """Which are by such a vehicle."""
        return np.array([each == kind for each in self.kind], dtype=np.bool_)


class Day(NamedTuple):
    """One row a look: UTC hours since the start; by vehicle its hour since Monday, and who drives, is awake, online."""

    hours: Array
    week_hour: Array
    driving: Flags
    awake: Flags
    online: Flags


class Seconds(NamedTuple):
    """By second and vehicle, while it drives: speed (km/h), acceleration, HDOP; the rest is not a number."""

    kind: list[str]
    speed: Array
    acceleration: Array
    hdop: Array
    latitude: Array
    longitude: Array


class Park(NamedTuple):
    """One entry a vehicle: its age, the health of its battery, whether it shows a trouble code."""

    years: Array
    health: Array
    broken: Flags


def at(text: str) -> int:
    """Unix milliseconds of a UTC time such as 2026-01-09T06:00."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def trips(fleet: Fleet, hours: float) -> tuple[Trips, Day]:
    """Look every minute. Trips that were under way at the beginning or the end are left out."""
    start_ms, steps = fleet.now_ms, round(hours * 60)
    kind = fleet.kind
    driving = fleet.driving
    since = np.full(len(fleet), np.nan)
    before = np.stack([fleet.columns()[ODOMETER], fleet.columns()[CHARGE]])
    found: list[tuple[str, float, float, float, float]] = []
    looks: list[tuple[Array, Flags, Flags, Flags]] = []
    for step in range(1, steps + 1):
        fleet.advance(start_ms + step * MINUTE_MS)
        columns, now = fleet.columns(), fleet.driving
        state = np.stack([columns[ODOMETER], columns[CHARGE]])
        for index in np.flatnonzero(driving & ~now & ~np.isnan(since)).tolist():
            km, charge = state[0, index] - before[0, index], before[1, index] - state[1, index]
            found.append((kind[index], km, step - since[index], charge, columns[AIR][index]))
        setting_out = now & ~driving
        since[setting_out] = step
        parked = ~now
        before[:, parked] = state[:, parked]
        driving = now
        looks.append((fleet.week_hour(), now, fleet.awake, fleet.online))
    kinds, *values = zip(*found, strict=True) if found else ((), (), (), (), ())
    local, *states = (np.stack(rows) for rows in zip(*looks, strict=True))
    hours_since = np.arange(1, steps + 1) / 60
    return Trips(list(kinds), *(np.array(v, dtype=np.float64) for v in values)), Day(hours_since, local, *states)


def seconds(fleet: Fleet, minutes: float, every: int = 1) -> Seconds:
    """Look every second, or every so many."""
    start_ms = fleet.now_ms
    rows = []
    for step in range(1, round(minutes * 60 / every) + 1):
        fleet.advance(start_ms + step * every * SECOND_MS)
        columns = fleet.columns()
        values = np.stack([columns[number] for number in (SPEED, ACCELERATION, HDOP, LATITUDE, LONGITUDE)])
        rows.append(np.where(fleet.driving, values, np.nan))
    return Seconds(fleet.kind, *np.stack(rows, axis=1))


def park(fleet: Fleet) -> Park:
    """What stands in the yard now."""
    broken = np.array([bool(fleet.faults(index)) for index in range(len(fleet))])
    return Park(fleet.years, fleet.columns()[HEALTH], broken)


def joined(parts: list[Trips]) -> Trips:
    """All trips of several looks."""
    kinds = [kind for part in parts for kind in part.kind]
    return Trips(kinds, *(np.concatenate(columns) for columns in zip(*(part[1:] for part in parts), strict=True)))
