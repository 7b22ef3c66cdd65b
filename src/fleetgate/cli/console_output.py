"""How commands speak: results on standard output, as a table for people or JSON for programs.

Decides form, and that an error of standard output is one of its own kind: it must not be taken for one of the files
that a command works on, nor the other way round. Errors are raised and told once, in `cli.main`.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TextIO, cast

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fleetgate.clock import utc

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

TIME_NAMES = ("at_ms", "after_ms", "before_ms", "from_ms", "to_ms", "since_ms", "until_ms")
"""How names of times end; they are shown as UTC in tables and stay numbers in JSON."""


class OutputLost(Exception):
    """Standard output does not take the answer. No OSError: nobody who catches those of files may catch it."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason.strerror)
        self.reason = reason


class _Output:
    """A stream, text or bytes, whose write and flush raise OutputLost."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def buffer(self) -> _Output:
        return _Output(self._stream.buffer)

    def write(self, data: Any) -> Any:
        with _losing():
            return self._stream.write(data)

    def flush(self) -> None:
        with _losing():
            self._stream.flush()


@contextmanager
def _losing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputLost(error) from error


@contextmanager
def answering() -> Iterator[None]:
    """Whoever writes to `sys.stdout` in here, be it a library, gets OutputLost; what is written is flushed at the end,
    where an error of it can still be told."""
    stdout = sys.stdout
    sys.stdout = cast(TextIO, _Output(stdout))
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    finally:
        sys.stdout = stdout


def print_json(value: Any) -> None:
    """One JSON document; bytes in it are base64, structs are objects."""
    text = msgspec.json.format(msgspec.json.encode(value)).decode()
    sys.stdout.write("\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n")) + "\n")


def _escaped(line: str) -> str:
    """The same JSON without what moves a terminal (C1 controls, direction marks), which JSON itself would let pass."""
    units = ("".join(f"\\u{unit:04x}" for unit in memoryview(c.encode("utf-16-le")).cast("H")) for c in line)
    return "".join(c if c.isprintable() else unit for c, unit in zip(line, units, strict=True))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table of `rows`; the sentence `empty` where there are none.

    Without a terminal there is no width to fit: lines are as long as they need to be, for grep and cut.
    """
    out = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    if table.row_count:
        with out.capture() as shown:
            out.print(table)
        lines = shown.get().rstrip("\n").split("\n")
        say("\n".join(line.rstrip() for line in lines))  # else each is filled up to the widest
    else:
        out.print(empty, markup=False)


def print_fields(value: msgspec.Struct) -> None:
    """A record's plain fields, one a line; lists in it are left to the caller."""
    fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, content in fields:
        if not isinstance(content, list):
            grid.add_row(Text(label(name), style="bold"), Text(show(name, content)))
    console().print(grid)


def print_records(records: Sequence[msgspec.Struct], names: Sequence[str], *, empty: str) -> None:
    """The named fields of records as a table."""
    rows = ([show(name, getattr(record, name)) or "-" for name in names] for record in records)
    print_table([label(name) for name in names], rows, empty=empty)


def say(text: str) -> None:
    """Lines for a person, as they are."""
    sys.stdout.write(text + "\n")


def say_wrapped(text: str, *, indent: str) -> None:
    """A sentence or two for a person, wrapped where there is a terminal."""
    if sys.stdout.isatty():
        width = console().width
        text = textwrap.fill(
            text, width - len(indent), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        ).replace("\n", "\n" + indent)
    say(indent + text)


def label(name: str) -> str:
    if name == "key_id":
        return "kid"
    return name.removesuffix("_ms").removesuffix("_id").replace("_", " ")


def show(name: str, value: Any) -> str:
    """A value as it stands in a table; a text under the name of a time (somebody altered it) is no time."""
    return utc(value) if isinstance(value, int | float) and name.endswith(TIME_NAMES) else cell(value)


def cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    text = str(value)
    # A device chose some of these texts: what is not printable (an escape sequence) must not reach a terminal.
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def console() -> Console:
    """For standard output; where that is no terminal, lines are as long as they need to be."""
    return Console() if sys.stdout.isatty() else Console(width=100_000, color_system=None, soft_wrap=True)
