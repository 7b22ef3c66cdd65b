"""A progress bar on standard error, for a person who waits; without a terminal only what is said beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TimeRemainingColumn

from fleetgate.cli.console_output import cell


class Bar:
    def __init__(self, inner: Progress, task: TaskID) -> None:
        self._inner = inner
        self._task = task

    def go(self, count: int) -> None:
        """So many more are done."""
        self._inner.advance(self._task, count)

    def say(self, line: str) -> None:
        """A line above the bar."""
        self._inner.console.print(cell(line), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(total: int) -> Iterator[Bar]:
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as inner:
        yield Bar(inner, inner.add_task("", total=total))
