"""Decides where vehicles are at home: places, their clocks and their weather. Who drives when is `diary`'s."""

from typing import NamedTuple

import numpy as np

from fleetsim.drive.kinds import Array, Index

HOUR_MS, DAY_MS, WEEK_MS = 3_600_000.0, 86_400_000.0, 7 * 86_400_000.0
_DAYS = 365.2425
# The first of January 1970 was a Thursday; weeks begin on Monday.
_THURSDAY_MS = 3 * DAY_MS
_SPREAD_M = 9_000.0
METRES_PER_DEGREE = 111_320.0


class Region(NamedTuple):
    """A city inland. Standard time the whole year, in hours ahead of UTC; degrees celsius: the mean of the year, half
    the range between January and July, half the range between night and day."""

    name: str
    share: float
    latitude: float
    longitude: float
    ahead_h: float
    altitude_m: float
    mean: float
    year: float
    day: float


REGIONS = (
    Region("Munich", 0.34, 48.137, 11.575, 1, 520, 9.5, 10, 4.5),
    Region("Birmingham", 0.18, 52.480, -1.900, 0, 140, 10, 6.5, 3.5),
    Region("Dallas", 0.20, 32.780, -96.800, -6, 140, 19.5, 10.5, 5.5),
    Region("Denver", 0.10, 39.740, -104.990, -7, 1_610, 10.5, 12, 7),
    Region("Zhengzhou", 0.18, 34.750, 113.630, 8, 110, 15.5, 13.5, 5),
)
# Weather comes in waves of days (amplitude in kelvin, period in days), at other times in each region.
_WAVES = ((2.6, 3.1), (2.2, 5.3), (1.8, 11.0))


def _column(name: str) -> Array:
    return np.array([getattr(region, name) for region in REGIONS], dtype=np.float64)


class Homes:
    """Each vehicle's region and the place where it belongs."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.region: Index = rng.choice(len(REGIONS), n, p=[region.share for region in REGIONS])
        self._ahead_ms = _column("ahead_h")[self.region] * HOUR_MS
        self._mean, self._year, self._day = (_column(name)[self.region] for name in ("mean", "year", "day"))
        self._phases = rng.uniform(0, 2 * np.pi, (len(_WAVES), len(REGIONS)))
        self._own = rng.normal(0, 0.8, n)
        self.altitude = _column("altitude_m")[self.region]
        self.latitude = _column("latitude")[self.region] + rng.normal(0, _SPREAD_M, n) / METRES_PER_DEGREE
        self.longitude = _column("longitude")[self.region] + rng.normal(0, _SPREAD_M, n) / metres_per_longitude(
            self.latitude
        )

    def week_ms(self, which: Index, at_ms: Array) -> Array:
        """Local time since the Monday of 1970's first week, in milliseconds."""
        return at_ms + self._ahead_ms[which] + _THURSDAY_MS

    def hour(self, which: Index, at_ms: Array) -> Array:
        """Local hour of the day."""
        return self.week_ms(which, at_ms) % DAY_MS / HOUR_MS

    def air(self, which: Index, at_ms: Array) -> Array:
        """Outside temperature: coldest in mid-January and before dawn."""
        days = at_ms / DAY_MS
        season = -np.cos(2 * np.pi * (days % _DAYS - 15) / _DAYS)
        daily = np.cos(2 * np.pi * (self.hour(which, at_ms) - 15) / 24)
        air: Array = self._mean[which] + self._own[which] + self._year[which] * season + self._day[which] * daily
        for i, (size, period) in enumerate(_WAVES):
            air += size * np.sin(2 * np.pi * days / period + self._phases[i, self.region[which]])
        return air

    def climate(self) -> Array:
        """Mean temperature of each vehicle's home, which ages its battery."""
        return self._mean


def metres_per_longitude(latitude: Array) -> Array:
    """How long a degree of longitude is there."""
    metres: Array = METRES_PER_DEGREE * np.cos(np.radians(latitude))
    return metres


def ground(latitude: Array, longitude: Array, altitude: Array) -> Array:
    """Height above the sea: rolling hills on the region's plain, nowhere steeper than four percent."""
    north, east = latitude * METRES_PER_DEGREE, longitude * 80_000
    height: Array = (
        altitude
        + 28 * np.sin(north / 1_900 + 0.7 * np.sin(east / 5_100))
        + 22 * np.sin(east / 1_500 + 0.5 * np.sin(north / 4_300))
    )
    return height
