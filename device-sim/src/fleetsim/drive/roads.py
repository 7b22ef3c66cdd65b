"""Decides what the road is like where a vehicle drives: how fast, how straight, how often it must stop, tunnels.

Roads grow with the distance from both ends of a trip: a street, the town, country roads, the motorway.
"""

from typing import NamedTuple

import numpy as np

from fleetsim.drive.kinds import Array, Flags, Index


class Road(NamedTuple):
    """From so many metres off both ends. Junctions come every `junction_m` on average; at `stop_share` of them one has
    to wait, `wait_s` on average, and one turns or slows at the others. `bend` is how far the road bends within 100 m,
    in degrees (sigma); a tunnel begins every `tunnel_km`, of a median length of `tunnel_m`."""

    name: str
    from_m: float
    limit_kmh: float
    junction_m: float
    stop_share: float
    wait_s: float
    bend: float
    tunnel_km: float
    tunnel_m: float


ROADS = (
    Road("street", 0, 32, 220, 0.35, 8, 7, 1e9, 0),
    Road("town", 350, 51, 480, 0.62, 19, 6, 120, 300),
    Road("country", 4_000, 86, 2_300, 0.40, 17, 5, 90, 600),
    Road("motorway", 13_000, 122, 14_000, 0.08, 12, 1.5, 45, 900),
)
_COLUMNS = {
    name: np.array([getattr(road, name) for road in ROADS], dtype=np.float64) for name in Road._fields if name != "name"
}
# On working days, the share of the speed that traffic takes by the hour.
# fmt: off
_TRAFFIC = np.array(
    (0, 0, 0, 0, 0, .02, .1, .22, .24, .14, .08, .08, .1, .1, .1, .14, .22, .26, .2, .1, .05, .02, 0, 0, 0)
)
# fmt: on
_WEEKEND_TRAFFIC = 0.3


def road_at(end_m: Array) -> Index:
    """The road so far off the nearer end of a trip."""
    return np.searchsorted(_COLUMNS["from_m"], end_m, side="right") - 1


def of(road: Index, field: str) -> Array:
    """A field of each road."""
    return _COLUMNS[field][road]


def traffic(hour: Array, weekend: Flags) -> Array:
    """The share of the speed that traffic takes."""
    taken: Array = np.interp(hour, np.arange(25.0), _TRAFFIC) * np.where(weekend, _WEEKEND_TRAFFIC, 1.0)
    return taken
