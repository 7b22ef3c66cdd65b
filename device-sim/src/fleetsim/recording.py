"""Decides how a recorded drive becomes messages: columns to signals, rows to events, and their times.

The recording keeps its spacing and is moved in time so that its last row lies at the moment the replay starts: then no
event is from the future, however fast it is played. Sending is the agent's.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from fleetsim.bundle import Bundle
from fleetsim.encode import OLDEST_AT_MS, ROWS_MSGPACK, Event, Name
from fleetsim.fleet import DRAIN_S, Devices, committing, finish, require_answers
from fleetsim.gate import RunError
from fleetsim.outbox import Draft
from fleetsim.signals import BY_PATH

SOFTWARE, CONFIG = "fleetsim", "recording"
MAX_NAME_BYTES = 128
# A replay takes a while to send; what is this close to 30 days would be too old by then.
LONGEST_MS = -OLDEST_AT_MS - 24 * 3600 * 1000


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


def drafts(rows: Sequence[Row], start_ms: float) -> Iterator[tuple[int, Draft]]:
    """(ms since the recording's start, message) for each recorded second, with times moved to end at `start_ms`."""
    first_ms, shift_ms = rows[0].at_ms, int(start_ms) - rows[-1].at_ms
    for _, second in groupby(rows, key=lambda row: row.at_ms // 1000):
        events = tuple(
            Event(row.at_ms + shift_ms, "sample" if row.values else "heartbeat", row.values, {}) for row in second
        )
        # A second has at most 1,000 milliseconds, but a recording may have more rows in one.
        last_ms = events[-1].at - shift_ms
        for i in range(0, len(events), 1_000):
            yield last_ms - first_ms, Draft(SOFTWARE, CONFIG, ROWS_MSGPACK, events[i : i + 1_000])


async def replay(devices: Devices, bundle: Bundle, rows: Sequence[Row], speed: float) -> int:
    """Send the rows at `speed` times real time; returns the number of messages. Raises RunError."""
    agent = devices.mqtt(bundle)
    start_ms = devices.clock.now_ms()
    count = 0
    async with committing(devices) as group:
        running = [group.create_task(agent.run())]
        for after_ms, draft in drafts(rows, start_ms):
            await devices.clock.sleep((start_ms + after_ms / speed - devices.clock.now_ms()) / 1000)
            # A recording loses nothing: where a vehicle would drop its oldest, it waits for the gate instead.
            await agent.room(DRAIN_S)
            agent.offer(draft)
            count += 1
        await finish([agent], running)
    require_answers([agent])
    return count


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
