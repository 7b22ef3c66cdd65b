"""Decides which kinds of vehicles there are: what each weighs, holds and can do. Their habits are `diary`'s.

Battery-electric all, as the catalogue's signals are. The figures are those of common models, rounded.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Flags = npt.NDArray[np.bool_]


class Kind(NamedTuple):
    """SI units but for `_kmh` and `_wh`. `accelerate` and `brake` are the most that a driver asks for, in m/s^2."""

    name: str
    share: float
    mass_kg: float
    drag_area_m2: float
    rolling: float
    top_kmh: float
    accelerate: float
    brake: float
    wheel_m: float
    gear: float
    recuperate_n: float
    pack_wh: float
    empty_v: float
    span_v: float
    ohm: float
    auxiliary_w: float
    climate_w_per_k: float
    charger_w: float
    fast_charger_w: float
    tyre_kpa: float
    km_a_year: float


CAR = Kind(
    *("car", 0.75, 1_900, 0.64, 0.010, 140, 2.1, 2.3, 0.34, 9.0, 4_500),
    *(72_000, 320, 80, 0.06, 300, 150, 11_000, 120_000, 250, 12_500),
)
VAN = Kind(
    *("van", 0.15, 2_900, 1.25, 0.011, 125, 1.8, 2.1, 0.35, 10.0, 6_000),
    *(77_000, 320, 80, 0.06, 350, 180, 11_000, 100_000, 380, 24_000),
)
TRUCK = Kind(
    *("truck", 0.10, 16_000, 5.6, 0.006, 86, 1.6, 2.1, 0.50, 22.0, 30_000),
    *(400_000, 560, 140, 0.025, 1_500, 300, 43_000, 300_000, 800, 70_000),
)
KINDS = (CAR, VAN, TRUCK)


class Makes:
    """The figures of each vehicle as arrays, by the names of `Kind`."""

    def __init__(self, kinds: Index) -> None:
        self.kind = kinds
        self._columns: dict[str, Array] = {
            name: np.array([getattr(kind, name) for kind in KINDS], dtype=np.float64)[kinds]
            for name in Kind._fields
            if name != "name"
        }

    def __getitem__(self, name: str) -> Array:
        return self._columns[name]


def choose(n: int, rng: np.random.Generator) -> Index:
    """A kind for each vehicle, by their shares."""
    return rng.choice(len(KINDS), n, p=[kind.share for kind in KINDS])
