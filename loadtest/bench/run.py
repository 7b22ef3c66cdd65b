"""`make bench`: the benchmarks, a table on the terminal, JSON with --json, a file under results/ with --save.

One module for each case or family of cases; what a figure claims is said there. Decides the order of the cases (chatty
before sustained, which takes its rate from it) and what a person sees while they run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
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
    sustained_case,
    table,
)
from loadtest.bench.context import FULL, QUICK, Context, Figures, Rounds
from loadtest.bench.processes import BenchError
from loadtest.bench.sketch_case import Absent
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Found = dict[str, Rounds]
"""The rounds of a case by its name; of its yardstick too, where it was measured beside one."""


def _alone(name: str, run: Callable[[Context], Rounds]) -> Callable[[Context], Found]:
    return lambda context: {name: run(context)}


def _once(name: str, run: Callable[[Context], Figures]) -> Callable[[Context], Found]:
    return lambda context: {name: [run(context)]}


def _beside(sketch: str, name: str, case: edge_cases.Case) -> Callable[[Context], Found]:
    def run(context: Context) -> Found:
        try:
            theirs, ours = edge_cases.run_both(context, case)
        except Absent:
            return {name: edge_cases.run(context, case)}
        return {sketch: theirs, name: ours}

    return run


# A case that was measured beside another one already is not measured again: a run of all of them takes the sketch's
# figures from the rounds of chatty and batched.
CASES: Mapping[str, Callable[[Context], Found]] = {
    "judge": _alone("judge", lambda context: judge_case.rounds(judge_case.ROUNDS)),
    "chatty": _beside("sketch", "chatty", edge_cases.CHATTY),
    "sketch": _alone("sketch", partial(edge_cases.run_sketch, case=edge_cases.CHATTY)),
    "batched": _beside("sketch_batched", "batched", edge_cases.BATCHED),
    "sketch_batched": _alone("sketch_batched", partial(edge_cases.run_sketch, case=edge_cases.BATCHED)),
    "batched_paths": _alone("batched_paths", partial(edge_cases.run, case=edge_cases.BATCHED_PATHS)),
    "http": _alone("http", partial(edge_cases.run, case=edge_cases.HTTP)),
    "columns": _once("columns", partial(columns_case.run, case=columns_case.COLUMNS)),
    "columns_40": _once("columns_40", partial(columns_case.run, case=columns_case.COLUMNS_40)),
    "load": _once("load", partial(load_case.run, case=load_case.LOAD)),
    "load_single": _once("load_single", partial(load_case.run, case=load_case.LOAD_SINGLE)),
    "load_mixed": _once("load_mixed", partial(load_case.run, case=load_case.LOAD_MIXED)),
    "sustained": _once("sustained", sustained_case.run),
    "herd": _once("herd", herd_case.run),
    "registry": _once("registry", registry_case.run),
}


def main(words: Sequence[str]) -> int:
    """Exit status: 0 when every case was measured or skipped, 1 when one could not be."""
    parser = argparse.ArgumentParser(
        prog="make bench",
        description="The benchmarks of fleetgate. Exit status 0 says that all could be measured, not that targets "
        "were met: those are for a quiet machine with two cores.",
    )
    parser.add_argument("--only", action="append", choices=list(CASES), help="run this case; may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under three minutes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the medians here too")
    parser.add_argument("--save", action="store_true", help="keep the run under loadtest/bench/results")
    arguments = parser.parse_args(words)
    console = Console()
    sizes = QUICK if arguments.quick else FULL
    busy = os.getloadavg()[0]
    console.print(
        f"sizes: {', '.join(f'{name} {value:g}' for name, value in sizes._asdict().items())}", highlight=False
    )
    failed = False
    with tempfile.TemporaryDirectory(prefix="fleetgate-bench-") as directory:
        context = Context(Path(directory), sizes)
        for name in [case for case in CASES if not arguments.only or case in arguments.only]:
            failed = not _run(name, context, console) or failed
    if context.rounds:
        console.print(table.terminal(context.rounds))
    for line in table.missed(context.rounds):
        console.print(f"missed: {line}", highlight=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(_rounded(context), indent=2) + "\n")
    if arguments.save and not failed:
        command = " ".join(["make bench", *([f'ARGS="{" ".join(words)}"'] if words else [])])
        kept = results.document(_rounded(context), context.rounds, command, sizes._asdict(), busy)
        console.print(f"kept as {results.save(kept)}")
    return 1 if failed else 0


def _run(name: str, context: Context, console: Console) -> bool:
    """Adds the rounds of one case; False when it could not be measured."""
    if name in context.rounds:
        return True
    started_s = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            progress.add_task(name)
            found = CASES[name](context)
    except Absent as absent:
        console.print(f"{name}: skipped, {absent}")
        return True
    except BenchError as error:
        console.print(f"{name}: {error}", style="red", highlight=False, markup=False)
        return False
    context.rounds |= found
    console.print(f"{' and '.join(found)}: {time.monotonic() - started_s:.0f} s", highlight=False)
    return True


def _rounded(context: Context) -> dict[str, Figures]:
    return {
        case: {figure: round(value, 4) for figure, value in figures.items()}
        for case, figures in context.figures.items()
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
