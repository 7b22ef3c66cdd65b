"""`make bench`: the benchmarks, a table on the terminal, JSON with --json, a file under results/ with --save.

One module for each case or family of cases; what a figure claims is said there. Decides the order of the cases (the
sketch beside what is compared with it, chatty before sustained) and how figures are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from loadtest.bench import (
    columns_case,
    edge_cases,
    herd_case,
    judge_case,
    load_case,
    registry_case,
    results,
    sketch_case,
    sustained_case,
)
from loadtest.bench.context import FULL, QUICK, Context, Figures
from loadtest.bench.processes import BenchError
from rich.console import Console
from rich.table import Table

CASES: Mapping[str, Callable[[Context], Figures]] = {
    "judge": lambda context: judge_case.run(),
    "sketch": partial(sketch_case.run, case=edge_cases.CHATTY),
    "chatty": partial(edge_cases.run, case=edge_cases.CHATTY),
    "sketch_batched": partial(sketch_case.run, case=edge_cases.BATCHED),
    "batched": partial(edge_cases.run, case=edge_cases.BATCHED),
    "batched_paths": partial(edge_cases.run, case=edge_cases.BATCHED_PATHS),
    "http": partial(edge_cases.run, case=edge_cases.HTTP),
    "columns": partial(columns_case.run, case=columns_case.COLUMNS),
    "columns_40": partial(columns_case.run, case=columns_case.COLUMNS_40),
    "load": partial(load_case.run, case=load_case.LOAD),
    "load_single": partial(load_case.run, case=load_case.LOAD_SINGLE),
    "sustained": sustained_case.run,
    "herd": herd_case.run,
    "registry": registry_case.run,
}
YARDSTICKS = {"chatty": "sketch", "batched": "sketch_batched"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description="The benchmarks of fleetgate.")
    parser.add_argument("--only", action="append", choices=list(CASES), help="run this case; may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under three minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--save", action="store_true", help="keep the run under loadtest/bench/results")
    arguments = parser.parse_args()
    console = Console()
    sizes = QUICK if arguments.quick else FULL
    busy = os.getloadavg()[0]
    console.print("sizes: " + ", ".join(f"{name} {value:g}" for name, value in sizes._asdict().items()))
    failed = False
    with tempfile.TemporaryDirectory(prefix="fleetgate-bench-") as directory:
        context = Context(Path(directory), sizes)
        for name in [case for case in CASES if not arguments.only or case in arguments.only]:
            failed = not _run(name, context, console) or failed
    console.print(_table(context.figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(context.figures, indent=2) + "\n")
    if arguments.save and not failed:
        command = " ".join(["make bench", *([f'ARGS="{" ".join(sys.argv[1:])}"'] if sys.argv[1:] else [])])
        console.print(f"kept as {results.save(results.document(context.figures, command, sizes._asdict(), busy))}")
    return 1 if failed else 0


def _run(name: str, context: Context, console: Console) -> bool:
    """Adds the figures of one case; False when it could not be measured."""
    try:
        with console.status(name):
            figures = CASES[name](context)
    except sketch_case.Absent as absent:
        console.print(f"{name}: skipped, {absent}")
        return True
    except BenchError as error:
        console.print(f"[red]{name}: {error}[/]")
        return False
    yardstick = context.figures.get(YARDSTICKS.get(name, ""))
    if yardstick is not None:
        figures["ratio_to_sketch"] = figures["edge_cpu_us_per_event"] / yardstick["edge_cpu_us_per_event"]
    context.figures[name] = {figure: round(value, 4) for figure, value in figures.items()}
    return True


def _table(figures: dict[str, Figures]) -> Table:
    table = Table("case", "figure", "value", title="medians", title_justify="left")
    for name, values in figures.items():
        for index, (figure, value) in enumerate(values.items()):
            shown = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3f}"
            table.add_row("" if index else name, figure, shown, end_section=index == len(values) - 1)
    return table


if __name__ == "__main__":
    sys.exit(main())
