"""What the watch compares: one table. A kind is a measure of a cohort in one look, and the least change that counts; a
series is what one of them was of one cohort and signal, look by look.

Decides sizes. Persistence and hysteresis are changes.py's, what a value is measures.py's. The reasons for the numbers
stand in docs/explanation/watch.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from fleetgate.load.watch.cohorts import Cohort

Z = 6.0
"""Scatters away from the median before a change is one. A day has some millions of comparisons: at 5 some of them would
be by chance."""

UP, DOWN, BOTH = 1, -1, 0


class Kind(NamedTuple):
    """`effect` is the least change, `floor` the least scatter that is believed, both in the unit of the measure;
    `absent_is_zero` where no value means that nothing of it happened; `least` vehicles that it must be about."""

    effect: float
    floor: float
    way: int = UP
    absent_is_zero: bool = False
    least: int = 10
    logarithm: bool = False
    """The measure is the natural logarithm of what is told."""


IN_A_CELL = 0.5
"""Least change of a share in a cell of the map: it has few vehicles."""

SILENT_LABEL = 0.45
"""Least change of the silent of a software version: where a region falls silent, a part of each version does."""

KINDS: Mapping[str, Kind] = {
    "event_rate": Kind(0.5, 0.05, BOTH, logarithm=True, least=20),
    "refused": Kind(0.05, 0.005, absent_is_zero=True),
    "silent": Kind(0.25, 0.03),
    "median": Kind(
        0.2, 0.03, BOTH, least=20
    ),  # of these two the angle of a share, asin(sqrt(x)): near a half, the same
    "spread": Kind(0.4, 0.03, BOTH, least=20),
    "stuck": Kind(0.3, 0.03),
    "signal_presence": Kind(0.4, 0.03, BOTH, absent_is_zero=True),
    "unknown_signals": Kind(0.05, 0.005, absent_is_zero=True),
    "implausible": Kind(0.02, 0.003, absent_is_zero=True),
    "faults": Kind(0.1, 0.005, absent_is_zero=True),
    "clock_skew": Kind(0.15, 0.02),
    "gaps": Kind(0.1, 0.005),
    "position_jumps": Kind(IN_A_CELL, 0.01, least=5),
}

Named = tuple[str, str, str, str]
"""A series as it stands in a table: tenant, kind, the cohort's words, signal."""


class Series(NamedTuple):
    kind: str
    cohort: Cohort
    signal: str

    @property
    def named(self) -> Named:
        return self.cohort.tenant, self.kind, self.cohort.words(), self.signal

    @property
    def key(self) -> str:
        """Of its alert."""
        return " | ".join(("watch", *self.named))
