"""Decides where vectors go: one JSON file for each case, the same bytes at every run."""

import json
from collections.abc import Iterator
from pathlib import Path

from fleetsim.vectors import bodies, envelopes, times
from fleetsim.vectors.case import Case


def all_cases() -> Iterator[tuple[str, Case]]:
    """Every case with its file name, `<expect>-<what>.json`. Raises AssertionError for a name used twice."""
    seen: set[str] = set()
    for module in (envelopes, times, bodies):
        for case in module.cases():
            name = f"{case.expect}-{case.name}.json"
            if name in seen:
                raise AssertionError(f"two vectors are named {name}")
            seen.add(name)
            yield name, case


def write_all(directory: Path) -> int:
    """Write every vector, remove vectors that are no more, and return their number. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {name: json.dumps(case.document(), indent=1) + "\n" for name, case in all_cases()}
    for path in directory.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (directory / name).write_text(text)
    return len(wanted)
