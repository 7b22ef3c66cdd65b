"""Decides how a vehicle moves from one speed to another: smoothly, and so that position, heading and odometer agree.

A move changes the speed from `v0` to `v1` in a time, and turns by an angle over its length; both along the curve
3u^2 - 2u^3, so that acceleration and yaw rate begin and end at nothing. Speed, way and heading are exact at any time,
and the position is their integral by Gauss's rule. Which move comes next is `driver`'s, what it costs `battery`'s.
"""

from typing import NamedTuple

import numpy as np

from fleetsim.drive.kinds import Array, Index
from fleetsim.drive.regions import METRES_PER_DEGREE, ground, metres_per_longitude

# Of the acceleration's and the curvature's mean over a move, the peak is so much: 6u(1-u) at u = 1/2.
PEAK = 1.5
_NODES, _WEIGHTS = (values / 2 for values in np.polynomial.legendre.leggauss(4))
_NODES = (_NODES + 0.5)[:, np.newaxis]
_WEIGHTS = _WEIGHTS[:, np.newaxis]


class Stretch(NamedTuple):
    """What some vehicles drove: seconds, metres, metres climbed; speed (m/s) and acceleration at four moments of it
    (rows), whose `weights` make a mean."""

    which: Index
    seconds: Array
    metres: Array
    climbed_m: Array
    speed: Array
    acceleration: Array
    weights: Array


class Motion:
    """Where everybody is and how it moves: speed in m/s, heading and yaw in degrees clockwise from north."""

    def __init__(self, latitude: Array, longitude: Array, altitude: Array, heading: Array, at_ms: float) -> None:
        n = len(latitude)
        self.latitude, self.longitude = latitude.copy(), longitude.copy()
        self._plain = altitude
        self.altitude = ground(latitude, longitude, altitude)
        self.heading, self.yaw = heading, np.zeros(n)
        self.speed, self.acceleration = np.zeros(n), np.zeros(n)
        self.odometer_m = np.zeros(n)
        self.at_ms = np.full(n, at_ms)
        self.end_ms = np.full(n, at_ms)
        self._begin_ms, self._ms = np.full(n, at_ms), np.ones(n)
        self._v0, self._v1, self._turn = np.zeros(n), np.zeros(n), np.zeros(n)
        self._from = heading.copy()

    def place(self, which: Index, latitude: Array, longitude: Array) -> None:
        """Put them there, on the ground."""
        self.latitude[which], self.longitude[which] = latitude, longitude
        self.altitude[which] = ground(latitude, longitude, self._plain[which])

    def begin(self, which: Index, to_speed: Array, seconds: Array, turn: Array) -> None:
        """From now on they change their speed and turn by so many degrees."""
        self._begin_ms[which] = self.at_ms[which]
        self._ms[which] = seconds * 1_000
        self.end_ms[which] = self.at_ms[which] + seconds * 1_000
        self._v0[which], self._v1[which], self._turn[which] = self.speed[which], to_speed, turn
        self._from[which] = self.heading[which]

    def stand(self, which: Index, until_ms: Array) -> None:
        """From now on they stand."""
        zero = np.zeros(len(which))
        self.begin(which, zero, np.maximum(0.001, (until_ms - self.at_ms[which]) / 1_000), zero)

    def advance(self, which: Index, to_ms: Array) -> Stretch:
        """Move them on, at most to the end of their move."""
        begin, ms = self._begin_ms[which], self._ms[which]
        v0, change, turn = self._v0[which], self._v1[which] - self._v0[which], self._turn[which]
        first = (self.at_ms[which] - begin) / ms
        last = np.minimum(1.0, (to_ms - begin) / ms)
        length = (v0 + change / 2) * ms / 1_000
        u = first + _NODES * (last - first)
        speed = v0 + change * _smooth(u)
        acceleration = change * _slope(u) / (ms / 1_000)
        heading = np.radians(self._from[which] + turn * _smooth(_share(u, v0, change)))
        seconds = (last - first) * ms / 1_000
        metres = length * (_share(last, v0, change) - _share(first, v0, change))
        north = (_WEIGHTS * speed * np.cos(heading)).sum(axis=0) * seconds
        east = (_WEIGHTS * speed * np.sin(heading)).sum(axis=0) * seconds
        self.latitude[which] += north / METRES_PER_DEGREE
        self.longitude[which] += east / metres_per_longitude(self.latitude[which])
        self.odometer_m[which] += metres
        below = self.altitude[which]
        self.altitude[which] = ground(self.latitude[which], self.longitude[which], self._plain[which])
        way = _share(last, v0, change)
        self.speed[which] = v0 + change * _smooth(last)
        self.acceleration[which] = change * _slope(last) / (ms / 1_000)
        self.heading[which] = (self._from[which] + turn * _smooth(way)) % 360
        self.yaw[which] = np.where(length > 0, turn * _slope(way) * self.speed[which] / np.maximum(length, 1e-9), 0)
        self.at_ms[which] = np.minimum(to_ms, self.end_ms[which])
        return Stretch(which, seconds, metres, self.altitude[which] - below, speed, acceleration, _WEIGHTS)


def _smooth(u: Array) -> Array:
    return u * u * (3 - 2 * u)


def _slope(u: Array) -> Array:
    return 6 * u * (1 - u)


def _share(u: Array, v0: Array, change: Array) -> Array:
    """How much of the move's way is behind it at `u` of its time; of no way, none."""
    mean = v0 + change / 2
    return np.where(mean > 0, (v0 * u + change * u * u * u * (1 - u / 2)) / np.maximum(mean, 1e-9), 0.0)
