"""Reads `gate.jsonl`, and what workers told of themselves: how the gate did, what both sides cost, and whether the
generator was the bottleneck.

Decides what is called a bottleneck: one process of the generator that had something to do all the time. Its share of a
second in which it ran or waited for a CPU (here: pressure) is 1 then, whether it used the CPU itself or others did. A
run in which that was so for longer than thresholds allow measures the generator and not the gate.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from loadtest.sampler import FILE

GENERATOR = "generator"
WORKERS = "workers.jsonl"
"""A line for each report of a worker that the sampler cannot see: `at_s`, and `processes` as in `gate.jsonl`."""


class Series(NamedTuple):
    """Points of one figure: seconds since the start of the run, and values."""

    at_s: list[float]
    values: list[float]

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None


class Samples:
    """The looks of a run, in their order, up to its end: `started_s` and `ended_s` in Unix seconds."""

    def __init__(self, run_directory: Path, started_s: float, ended_s: float) -> None:
        self._looks, told = (
            [look for look in _read(run_directory / name) if started_s <= look["at_s"] <= ended_s]
            for name in (FILE, WORKERS)
        )
        self._costs: dict[str, list[tuple[float, dict[str, float]]]] = defaultdict(list)
        for look in self._looks + told:
            for name, cost in look["processes"].items():
                if cost is not None:
                    self._costs[name].append((look["at_s"], cost))
        self._started_s = started_s
        self.seconds = ended_s - started_s

    @property
    def clock_step_s(self) -> float:
        """By how much the machine's clock ran away from its monotonic one, at most."""
        apart = [look["at_s"] - look["monotonic_s"] for look in self._looks]
        return max(apart, default=0.0) - min(apart, default=0.0)

    @property
    def complete(self) -> bool:
        """Whether the run was looked at most of the time."""
        return len(self._looks) >= self.seconds / 2

    def processes(self) -> list[str]:
        """The names of all that were there at some time."""
        return sorted(self._costs)

    def ended(self) -> list[str]:
        """Processes that the sampler saw, and did not at its last look."""
        last = self._looks[-1]["processes"] if self._looks else {}
        return [name for name in self.processes() if name in last and last[name] is None]

    def metric(self, process: str, name: str) -> Series:
        """A gauge as it was."""
        found = [
            (look["at_s"] - self._started_s, figures[name])
            for look in self._looks
            if (figures := look["metrics"].get(process)) is not None and name in figures
        ]
        return Series([at for at, _ in found], [value for _, value in found])

    def cpu(self, process: str) -> Series:
        """Cores that it used."""
        return self._rate(process, ("cpu_s",))

    def pressure(self, process: str) -> Series:
        """The share of the time in which its first thread ran or would have."""
        return self._rate(process, ("ran_s", "waited_s"))

    def machine(self) -> Series:
        """The share of all CPUs that was used, by whomever."""
        pairs = [(before, after) for before, after in self._pairs()]
        shares = [
            (after["machine"]["busy_s"] - before["machine"]["busy_s"])
            / max(after["machine"]["there_s"] - before["machine"]["there_s"], 0.01)
            for before, after in pairs
        ]
        return Series([after["at_s"] - self._started_s for _, after in pairs], shares)

    def memory_mb(self, process: str) -> float:
        """The most that it had."""
        return max((cost["rss_mb"] for _, cost in self._costs[process]), default=0.0)

    def generator(self) -> list[str]:
        return [name for name in self.processes() if name.partition("-")[0] == GENERATOR]

    def busiest(self, pressure: float) -> tuple[str, float]:
        """The process of the generator that was longest under at least this pressure, and the share of the run."""
        shares = {name: self._share_above(name, pressure) for name in self.generator()}
        name = max(shares, key=lambda name: shares[name], default="")
        return name, shares.get(name, 0.0)

    def _share_above(self, process: str, pressure: float) -> float:
        """By time, not by looks: a machine that is too busy to look makes few and long ones."""
        at_s, values = self.pressure(process)
        if not values:
            return 0.0
        widths = np.diff([self._costs[process][0][0] - self._started_s, *at_s])
        return float(np.average(np.array(values) >= pressure, weights=widths))

    def _rate(self, process: str, counters: tuple[str, ...]) -> Series:
        at, values = [], []
        for (then_s, then), (now_s, now) in pairwise(self._costs[process]):
            if now_s > then_s:
                at.append(now_s - self._started_s)
                values.append(sum(now[name] - then[name] for name in counters) / (now_s - then_s))
        return Series(at, values)

    def _pairs(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        return ((one, other) for one, other in zip(self._looks, self._looks[1:], strict=False)
                if other["at_s"] > one["at_s"])  # fmt: skip


def _read(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be cut off
