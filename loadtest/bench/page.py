"""Puts the figures of the newest kept run on the page about performance: `python -m loadtest.bench.page [FILE]`.

Decides what of a run stands there: machine, commit, command, and the figures that have a target. The words around them
are people's.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtest.bench import table
from loadtest.bench.results import RESULTS

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "performance.md"
_BEGIN, _END = "<!-- figures of a kept run: begin -->\n", "<!-- figures of a kept run: end -->\n"


def main(words: Sequence[str]) -> int:
    """Exit status 1 when there is no kept run."""
    kept = [Path(word) for word in words] or sorted(RESULTS.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not kept:
        print(f'no run in {RESULTS.name}/: call make bench ARGS="--save" first', file=sys.stderr)
        return 1
    PAGE.write_text(filled(PAGE.read_text(), kept[-1].name, json.loads(kept[-1].read_text())))
    return 0


def filled(page: str, name: str, run: dict[str, Any]) -> str:
    """The page with the figures of this run between its two marks. Raises ValueError without them."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"the page has lost its marks: {_BEGIN.strip()} and {_END.strip()}")
    machine = run["machine"]
    said = (
        f"`{run['command']}` at commit {run['commit'][:8]} on {machine['cores']} cores of {machine['processor']}, "
        f"Python {run['versions']['python']}; medians. All figures of the run: `loadtest/bench/results/{name}`.\n"
    )
    return f"{before}{begin}{said}\n{table.page(run['cases'])}{end}{after}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
