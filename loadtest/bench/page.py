"""Puts the figures of the newest kept run on the page about performance: `python -m loadtest.bench.page [FILE]`.

Decides which run may stand there: a full one of all cases, none of which failed or signed messages late; and of it:
machine, commit, command, how busy the machine was if it was, and the figures that have a target. The words around them
are people's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.bench import table
from loadtest.bench.context import FULL
from loadtest.bench.results import RESULTS, short
from loadtest.bench.run import CASES

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "performance.md"
YARDSTICKS = {"sketch", "sketch_batched"}  # whoever has no sketch can keep a run all the same
QUIET_LOAD = 0.5  # load average before a run, up to which nothing is said of it
_BEGIN, _END = "<!-- figures of a kept run: begin -->\n", "<!-- figures of a kept run: end -->\n"


def main(words: Sequence[str]) -> int:
    """Exit status 1 when there is no run that may stand there."""
    runs = {path: json.loads(path.read_text()) for path in map(Path, words)} or newest(RESULTS)
    if not runs:
        print(
            f'no full run of all cases in {RESULTS.name}/: call make bench ARGS="--save" first, or name a file',
            file=sys.stderr,
        )
        return 1
    for path, run in runs.items():
        if reasons := unfit(run):
            print(f"{path} cannot stand on the page: {'; '.join(reasons)}", file=sys.stderr)
            return 1
        PAGE.write_text(filled(PAGE.read_text(), path.name, run))
    return 0


def newest(directory: Path) -> dict[Path, dict[str, Any]]:
    """The fit run that was kept last, by its own time; none where there is none."""
    runs = {path: json.loads(path.read_text()) for path in directory.glob("*.json")}
    fit = sorted((run["at"], path) for path, run in runs.items() if not unfit(run))
    return {path: runs[path] for _, path in fit[-1:]}


def unfit(run: dict[str, Any]) -> list[str]:
    """Why this run may not stand on the page; empty when it may."""
    absent = [case for case in CASES if case not in run["cases"] and case not in YARDSTICKS]
    late = [case for case, figures in run["cases"].items() if "late_messages" in figures]
    found = [
        *([f"cases are absent: {', '.join(absent)}"] if absent else []),
        *([f"cases failed: {', '.join(run['failed'])}"] if run.get("failed") else []),
        *([f"messages were signed while the clock ran: {', '.join(late)}"] if late else []),
    ]
    return found if run["sizes"] == FULL._asdict() else ["it is not of the full sizes", *found]


def filled(page: str, name: str, run: dict[str, Any]) -> str:
    """The page with the figures of this run between its two marks. Raises ValueError without them."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has lost its marks: {_BEGIN.strip()} and {_END.strip()}")
    machine = run["machine"]
    load = machine["load_average_before"]
    busy = f" The machine was not quiet: load average {load:.2f} before the run." if load > QUIET_LOAD else ""
    changed = " Files differed from that commit." if run["commit"].endswith("+") else ""
    said = (
        f"`{run['command']}` at commit {short(run['commit'])} on {machine['cores']} cores of {machine['processor']}, "
        f"Python {run['versions']['python']}; medians.{busy}{changed} All figures of the run: "
        f"`loadtest/bench/results/{name}`.\n"
    )
    return f"{before}{begin}{said}\n{table.page(run['cases'])}{end}{after}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
