"""Recorded drives: what a CSV file becomes, and how its faults are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetsim.gate import RunError
from fleetsim.recording import parse_mapping, read_rows, takes

GOOD = "epoch,speed,hdop\n100.25,10,0.5\n100.75,11,0.6\n101.5,12,\n"
MAPS = [parse_mapping("speed=Vehicle.Speed:3.6"), parse_mapping("hdop=Test.Hdop")]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Three rows in two seconds."""
    path = tmp_path / "drive.csv"
    path.write_text(GOOD)
    return path


def test_rows_are_scaled_and_named(recording: Path) -> None:
    """A known path becomes its number, an unknown one stays a path, an empty cell is no value."""
    rows = read_rows(recording, "epoch", MAPS)
    assert [row.values for row in rows] == [
        {1: 10 * 3.6, "Test.Hdop": 0.5},
        {1: 11 * 3.6, "Test.Hdop": 0.6},
        {1: 12 * 3.6},
    ]


def test_the_last_row_lies_at_the_start_of_the_replay(recording: Path) -> None:
    """Times keep their spacing and end now; each recorded second is a message."""
    made = list(takes(read_rows(recording, "epoch", MAPS), 5_000_000))
    times = [[event.at for event in take.draft.events] for take in made]
    assert ([take.at_ms for take in made], times) == ([500, 1_250], [[4_998_750, 4_999_250], [5_000_000]])


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("epoch,speed,hdop\n1,2,0\n2,fast,0\n", r"drive\.csv, line 3: speed is 'fast', not a number"),
        ("epoch,speed,hdop\n1,nan,0\n", r"drive\.csv, line 2: speed is 'nan', not a finite"),
        ("epoch,speed,hdop\n1,inf,0\n", r"drive\.csv, line 2: speed is 'inf', not a finite"),
        ("epoch,speed,hdop\n,1,0\n", r"drive\.csv, line 2: epoch is '', not a number"),
        ("epoch,speed,hdop\n2,1,0\n1,1,0\n", r"drive\.csv, line 3: epoch goes back in time"),
        ("epoch,speed,hdop\n2,1\n", r"drive\.csv, line 2: fewer cells"),
        ("epoch,hdop\n1,1\n", r"drive\.csv, line 1: no column 'speed'"),
        ("epoch,speed,hdop\n", r"drive\.csv: no rows"),
        ("epoch,speed,hdop\n0,1,1\n9999999,1,1\n", r"drive\.csv: longer than 29 days"),
        ("", r"drive\.csv, line 1: no column 'epoch'"),
    ],
)
def test_a_fault_is_named_with_file_and_line(recording: Path, text: str, where: str) -> None:
    """A recording that cannot be sent as it is names the place."""
    recording.write_text(text)
    with pytest.raises(RunError, match=where):
        read_rows(recording, "epoch", MAPS)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The error names the file."""
    with pytest.raises(RunError, match=r"gone\.csv: No such file"):
        read_rows(tmp_path / "gone.csv", "epoch", MAPS)


@pytest.mark.parametrize(
    "text", ["speed", "speed=", "=Vehicle.Speed", "speed=Vehicle.Spëed", "speed=A:x", "speed=A:nan"]
)
def test_a_mapping_that_is_none_is_quoted(text: str) -> None:
    """--map is repeated in the error."""
    with pytest.raises(RunError, match=f"--map {text}"):
        parse_mapping(text)
