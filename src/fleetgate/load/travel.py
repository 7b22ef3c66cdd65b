"""Travel that nobody can have made: two positions too far apart for the time between them.

Decides how far is too far. The bound is of no car: 360 km/h, and a kilometre more for receivers that are wrong in a
street between houses or after a tunnel. A train or a ferry that carries a car stays below it. Says, too, which signals
a position is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LATITUDE, LONGITUDE = 7, 8
"""Numbers of Vehicle.CurrentLocation in the catalogue, which never change."""

SLACK_M = 1_000.0
FASTEST_M_S = 100.0
_METRES_PER_DEGREE = 111_195.0  # of a great circle on a sphere of 6,371 km

Array = NDArray[np.float64]


def jumps(
    latitude: Array, longitude: Array, at_ms: Array, next_latitude: Array, next_longitude: Array, next_at_ms: Array
) -> NDArray[np.bool_]:
    """Whether each way from a position to the next was impossible. Degrees, and times by the device's own clock; NaN is
    no position, from which every way is possible."""
    seconds = np.abs(next_at_ms - at_ms) / 1000
    with np.errstate(invalid="ignore"):
        far: NDArray[np.bool_] = metres(latitude, longitude, next_latitude, next_longitude) > (
            SLACK_M + FASTEST_M_S * seconds
        )
    return far


def metres(latitude: Array, longitude: Array, other_latitude: Array, other_longitude: Array) -> Array:
    """Along the great circle (haversine)."""
    a, b = np.radians(latitude), np.radians(other_latitude)
    half = np.sin((b - a) / 2) ** 2 + np.cos(a) * np.cos(b) * np.sin(np.radians(other_longitude - longitude) / 2) ** 2
    found: Array = np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1)))) * _METRES_PER_DEGREE
    return found
