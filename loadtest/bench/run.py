"""`make bench`: the benchmarks, a table on the terminal, JSON with --json, a file under results/ with --save.

One module for each case or family of cases; what a figure claims is said there. Decides the order of the cases (chatty
before sustained, which takes its rate from it), what a person sees while they run, and that whatever ends a case or the
run, what was measured until then comes out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from loadtest.bench import (
    columns_case,
    edge_cases,
    flood_case,
    herd_case,
    judge_case,
    load_case,
    registry_case,
    results,
    revoke_case,
    sustained_case,
    table,
    tenants_case,
)
from loadtest.bench.arguments import output_file
from loadtest.bench.context import FULL, QUICK, Context, Figures, Rounds, Sizes
from loadtest.bench.processes import BenchError, end_on_sigterm
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
    "flood": _alone("flood", flood_case.run),
    "herd": _once("herd", herd_case.run),
    "tenants": _once("tenants", tenants_case.run),
    "registry": _once("registry", registry_case.run),
    "revoke": _once("revoke", revoke_case.run),
}


ROOM_GB = {FULL: 7, QUICK: 2}  # batched_paths: up to 2 GB of spool in a round, and a third more on a fast machine
INTERRUPTED = 130


def main(words: Sequence[str]) -> int:
    """Exit status: 0 when every case was measured or skipped, 1 when one could not be, 2 for a command line that makes
    no sense, 130 when interrupted."""
    arguments = _parse(words)
    console = Console()
    sizes = QUICK if arguments.quick else FULL
    busy = os.getloadavg()[0]
    console.print(
        f"sizes: {', '.join(f'{name} {value:g}' for name, value in sizes._asdict().items())}", highlight=False
    )
    failed: dict[str, str] = {}
    context = Context(Path(), sizes)
    try:
        with tempfile.TemporaryDirectory(prefix="fleetgate-bench-") as directory:
            _look_for_room(Path(directory), sizes, console)
            context.directory = Path(directory)
            for name in [case for case in CASES if not arguments.only or case in arguments.only]:
                if reason := _run(name, context, console):
                    failed[name] = reason
    except KeyboardInterrupt:
        failed["run"] = "interrupted: these are the cases that were finished"
        console.print(failed["run"], style="red")
    _tell(context, console)
    if arguments.save:
        command = " ".join(["make bench", *([f'ARGS="{" ".join(words)}"'] if words else [])])
        kept = results.document(_rounded(context), context.rounds, failed, command, sizes._asdict(), busy)
        console.print(f"kept as {results.save(kept)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(_rounded(context), indent=2) + "\n")
    return INTERRUPTED if "run" in failed else int(bool(failed))


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench",
        allow_abbrev=False,
        description="The benchmarks of fleetgate. Exit status 0 says that all could be measured, not that targets "
        "were met: those are for a quiet machine with two cores. 1: a case could not be measured; 2: the command line; "
        "130: interrupted. make itself turns each of them but 0 into 2.",
    )
    parser.add_argument("--only", action="append", choices=list(CASES), help="run this case; may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under three minutes on a quiet machine")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="write the medians here too, of all cases that were finished"
    )
    parser.add_argument(
        "--save", action="store_true", help="keep the run under loadtest/bench/results, whatever became of it"
    )
    return parser.parse_args(words)


def _look_for_room(directory: Path, sizes: Sizes, console: Console) -> None:
    free_gb = shutil.disk_usage(directory).free / 1e9
    if free_gb < ROOM_GB[sizes]:
        console.print(
            f"{directory.parent} has {free_gb:.1f} GB of room and the largest case may need {ROOM_GB[sizes]}: "
            "set TMPDIR to another place if a case fails for it",
            highlight=False,
            soft_wrap=True,
        )


def _tell(context: Context, console: Console) -> None:
    if context.rounds:
        console.print(table.terminal(context.rounds))
    lines = [
        *(f"note: {line}" for line in context.notes),
        *(f"late: {line}" for line in table.late(context.rounds)),
        *(f"missed: {line}" for line in table.missed(context.rounds)),
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _run(name: str, context: Context, console: Console) -> str:
    """Adds the rounds of one case; why it could not be measured, or nothing."""
    if name in context.rounds:
        return ""
    started_s = time.monotonic()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            progress.add_task(name)
            found = CASES[name](context)
    except Absent as absent:
        console.print(f"{name}: skipped, {absent}")
        return ""
    except Exception as error:  # one case that breaks must not take the figures of the others with it
        reason = str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"
        console.print(f"{name}: {reason}", style="red", highlight=False, markup=False)
        return reason
    context.rounds |= found
    console.print(f"{' and '.join(found)}: {time.monotonic() - started_s:.0f} s", highlight=False)
    return ""


def _rounded(context: Context) -> dict[str, Figures]:
    return {
        case: {figure: round(value, 4) for figure, value in figures.items()}
        for case, figures in context.figures.items()
    }


if __name__ == "__main__":
    end_on_sigterm()
    sys.exit(main(sys.argv[1:]))
