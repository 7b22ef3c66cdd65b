"""What a case is given and what it gives back: the sizes of this run, devices to use, a place on disk, rounds.

Decides the two sizes, full and quick, and that the median of the rounds counts. What is measured is the cases'.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

from loadtest.bench.gate import Gate
from loadtest.bench.installation import Installation

Figures = dict[str, float]
"""Figures of one case by name, in the unit that its name ends with."""

Rounds = list[Figures]
"""The same figures of one case, measured again and again; only one where it measures once."""


def medians(rounds: Rounds) -> Figures:
    """What counts of the rounds of a case. A figure that a round does not have was 0 there."""
    names = dict.fromkeys(name for figures in rounds for name in figures)
    return {name: statistics.median(figures.get(name, 0.0) for figures in rounds) for name in names}


class Sizes(NamedTuple):
    """How much of everything; times in seconds."""

    rounds: int  # of a case over sockets; the median counts
    seconds: float  # measured in each round
    columns_seconds: float  # sent; until all of it is loaded takes ten times as long
    segments: int  # of 16 MiB, for load
    sustained_seconds: float
    herd: int
    registry_known: int
    registry_active: int
    revoke_sessions: int
    revocations: int


FULL = Sizes(3, 8, 4, 30, 60, 10_000, 1_000_000, 5_000, 2_000, 100)
QUICK = Sizes(1, 3, 0.5, 3, 8, 1_000, 20_000, 200, 200, 5)


class Context:
    """`rounds` are those of the cases that ran before, by case; `notes` what a person must know of this one."""

    def __init__(self, directory: Path, sizes: Sizes) -> None:
        self.directory = directory
        self.sizes = sizes
        self.rounds: dict[str, Rounds] = {}
        self.notes: list[str] = []
        self._installation: Installation | None = None
        self._gates = 0

    @property
    def figures(self) -> dict[str, Figures]:
        """The medians of the cases that ran before."""
        return {case: medians(rounds) for case, rounds in self.rounds.items()}

    def installation(self, devices: int) -> Installation:
        """With at least so many enrolled devices."""
        if self._installation is None:
            self._installation = Installation(self.directory / "installation")
        self._installation.enrol(devices)
        return self._installation

    def gate(self, devices: int, control: Path | None = None, *, server: bool = False) -> Gate:
        """A new gate with an empty spool that knows at least so many devices."""
        self._gates += 1
        return Gate(self.installation(devices), self.directory / f"gate-{self._gates}", control, server=server)
