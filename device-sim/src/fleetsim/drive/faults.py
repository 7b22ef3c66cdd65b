"""Decides which trouble codes a vehicle shows: by its age, by heat and cold, until somebody repairs it."""

from typing import NamedTuple

import numpy as np

from fleetsim.drive.kinds import Array


class Fault(NamedTuple):
    """A code of SAE J2012. `per_year`: how often a vehicle of five years gets it at 20 degrees; it grows with age to
    the power of `ageing`, and doubles with every so many kelvin above (below: negative) 20 degrees of the pack; zero:
    never. It stands until it is repaired after `days` on average."""

    code: str
    per_year: float
    ageing: float
    doubles_k: float
    days: float


FAULTS = (
    Fault("P0A7F", 0.05, 2.0, 15, 30),  # battery pack deterioration
    Fault("P0A7E", 0.06, 0.6, 7, 5),  # battery pack over temperature
    Fault("P0A93", 0.05, 1.2, 12, 20),  # inverter cooling system performance
    Fault("P0562", 0.20, 1.0, -14, 10),  # system voltage low
    Fault("C0775", 0.50, 0.2, -20, 10),  # low tyre pressure
    Fault("U0100", 0.12, 0.8, 0, 15),  # lost communication with a control unit
)
_YEARS_HALFWAY = 5.0
_MOST_DOUBLINGS = 4.0


class Faults:
    """`active[fault, vehicle]`."""

    def __init__(self, years: Array, pack: Array, rng: np.random.Generator) -> None:
        self._rng = rng
        rates = self._per_day(years, pack)
        days = np.array([fault.days for fault in FAULTS])[:, np.newaxis]
        self.active = rng.random(rates.shape) < rates * days / (1 + rates * days)

    def pass_time(self, years: Array, pack: Array, days: float) -> None:
        """Some break, some are repaired."""
        begins = self._rng.random(self.active.shape) < -np.expm1(-self._per_day(years, pack) * days)
        stands = np.array([fault.days for fault in FAULTS])[:, np.newaxis]
        ends = self._rng.random(self.active.shape) < -np.expm1(-days / stands)
        self.active = (self.active & ~ends) | begins

    def of(self, index: int) -> list[str]:
        """The codes of one vehicle."""
        return [FAULTS[row].code for row in np.flatnonzero(self.active[:, index])]

    @staticmethod
    def _per_day(years: Array, pack: Array) -> Array:
        rows = []
        for fault in FAULTS:
            doublings = np.zeros(len(pack)) if fault.doubles_k == 0 else (pack - 20) / fault.doubles_k
            rate = fault.per_year / 365.25 * np.maximum(years / _YEARS_HALFWAY, 0.02) ** fault.ageing
            rows.append(rate * 2.0 ** np.clip(doublings, -_MOST_DOUBLINGS, _MOST_DOUBLINGS))
        return np.stack(rows)
