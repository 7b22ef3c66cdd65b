"""Reads what locust itself counted: `requests_stats.csv`, one row for each name and one for all together.

Decides nothing: failures are those that the users of `locustfile` called so.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

FILE = "requests_stats.csv"
_ALL = "Aggregated"


class Requests(NamedTuple):
    """Response times in milliseconds, None for a name without any."""

    kind: str
    name: str
    requests: int
    failures: int
    p50_ms: float | None
    p99_ms: float | None


def read(run_directory: Path) -> list[Requests]:
    """A row for each name; empty where locust wrote none."""
    path = run_directory / FILE
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            Requests(
                row["Type"],
                row["Name"],
                int(row["Request Count"]),
                int(row["Failure Count"]),
                _number(row["50%"]),
                _number(row["99%"]),
            )
            for row in csv.DictReader(file)
            if row["Name"] != _ALL
        ]


def _number(text: str) -> float | None:
    return None if text == "N/A" else float(text)
