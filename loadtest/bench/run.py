"""`make bench`: the benchmarks, a table on the terminal, JSON with --json.

One module for each case, each with `run() -> dict[str, float]`: figures by name, medians. What a figure claims is
said in its module; the cases over sockets and ClickHouse come with the swarm driver.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import judge_case
from rich.console import Console
from rich.table import Table

CASES: dict[str, Callable[[], dict[str, float]]] = {"judge": judge_case.run}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description="The benchmarks of fleetgate.")
    parser.add_argument("--only", choices=sorted(CASES), help="run this case alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args()
    console = Console()
    figures: dict[str, dict[str, float]] = {}
    for name in [arguments.only] if arguments.only else list(CASES):
        with console.status(name):
            figures[name] = CASES[name]()
    table = Table("case", "figure", "value", title="medians", title_justify="left")
    for name, values in figures.items():
        for figure, value in values.items():
            table.add_row(name, figure, f"{value:.3f}")
    console.print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
