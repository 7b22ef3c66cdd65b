"""Decides how a recorded drive in CSV becomes messages: columns to signals, rows to events, and their times.

When they are sent is `replay`'s, which says why their times are moved.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from fleetsim.encode import ROWS_MSGPACK, Event, Name
from fleetsim.gate import RunError
from fleetsim.outbox import Draft
from fleetsim.signals import BY_PATH
from fleetsim.tape import LONGEST_MS, Take

SOFTWARE, CONFIG = "fleetsim", "recording"
MAX_NAME_BYTES = 128


class Mapping(NamedTuple):
    """One column's signal, named as the vehicle names it, and what its values are multiplied by."""

    column: str
    name: Name
    factor: float


class Row(NamedTuple):
    """One row: its recorded time in Unix ms, and its values in the signals' units."""

    at_ms: int
    values: dict[Name, float]


def parse_mapping(text: str) -> Mapping:
    """'column=Vehicle.Path' or 'column=Vehicle.Path:factor'. Raises RunError that quotes the text."""
    column, _, rest = text.partition("=")
    path, _, factor = rest.partition(":")
    if not column or not path or not path.isascii() or not path.isprintable() or len(path) > MAX_NAME_BYTES:
        raise RunError(f"--map {text}: write COLUMN=VSS.PATH or COLUMN=VSS.PATH:FACTOR")
    known = BY_PATH.get(path)
    return Mapping(column, known.number if known else path, _number(factor or "1", f"--map {text}: the factor"))


def read_rows(path: Path, time_column: str, mappings: Sequence[Mapping]) -> list[Row]:
    """Read the recording; an empty cell is no value.

    Raises RunError that names file and line for what is not a finite number or goes back in time.
    """
    rows: list[Row] = []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            for column in (time_column, *(m.column for m in mappings)):
                if column not in (reader.fieldnames or ()):
                    raise RunError(f"{path}, line 1: no column {column!r}; there are {reader.fieldnames}")
            for cells in reader:
                where = f"{path}, line {reader.line_num}"
                row = _row(cells, where, time_column, mappings)
                if rows and row.at_ms < rows[-1].at_ms:
                    raise RunError(f"{where}: {time_column} goes back in time")
                rows.append(row)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise RunError(f"{path}: not a CSV file in UTF-8 ({error})") from None
    if not rows:
        raise RunError(f"{path}: no rows")
    if rows[-1].at_ms - rows[0].at_ms > LONGEST_MS:
        raise RunError(f"{path}: longer than 29 days; an event may be 30 days old at most, so cut it")
    return rows


def takes(rows: Sequence[Row], start_ms: float) -> Iterator[Take]:
    """A message of the one vehicle for each recorded second, with times moved to end at `start_ms`."""
    first_ms, shift_ms = rows[0].at_ms, int(start_ms) - rows[-1].at_ms
    for _, second in groupby(rows, key=lambda row: row.at_ms // 1000):
        events = tuple(
            Event(row.at_ms + shift_ms, "sample" if row.values else "heartbeat", row.values, {}) for row in second
        )
        # A second has at most 1,000 milliseconds, but a recording may have more rows in one.
        last_ms = events[-1].at - shift_ms
        for i in range(0, len(events), 1_000):
            yield Take(last_ms - first_ms, 0, Draft(SOFTWARE, CONFIG, ROWS_MSGPACK, events[i : i + 1_000]))


def _row(cells: dict[str, str | None], where: str, time_column: str, mappings: Sequence[Mapping]) -> Row:
    if None in cells.values():
        raise RunError(f"{where}: fewer cells than line 1 names")
    at_ms = round(_number(cells[time_column] or "", f"{where}: {time_column}") * 1000)
    values: dict[Name, float] = {}
    for column, name, factor in mappings:
        if text := (cells[column] or "").strip():
            values[name] = _number(text, f"{where}: {column}") * factor
    return Row(at_ms, values)


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise RunError(f"{where} is {text!r}, not a number") from None
    if not math.isfinite(value):
        raise RunError(f"{where} is {text!r}, not a finite number")
    return value
