"""What a table shows of a value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec import Struct
from rich.console import Console

from fleetgate.cli import console_output
from fleetgate.cli.console_output import TIME_NAMES, cell, label, print_fields, show
from fleetgate.cli.db import exact


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("one\ntwo", "one\\ntwo"),
        ("Größe 5 µm", "Größe 5 µm"),
        ("\u202eright to left", "\\u202eright to left"),
        (None, "-"),
    ],
)
def test_no_text_of_a_device_moves_the_terminal(value: object, shown: str) -> None:
    """Escape sequences, line ends and direction marks are spelled out."""
    assert cell(value) == shown


@pytest.mark.parametrize("value", [88.25, 52.520008, 123456.789, -0.1, 1e300])
def test_a_reading_is_not_rounded(value: float) -> None:
    """`db query` shows numbers as they are stored."""
    assert float(cell(exact(value))) == value


SOURCE = Path(__file__).parents[3] / "src" / "fleetgate"
RECORDS = [
    *(f"control/{name}.py" for name in ("audit", "cases", "roster", "rotation", "vehicles")),
    *("cli/spool_records.py", "load/gaps.py", "proof/message.py", "spool/survey.py"),
]
"""The structs that are shown to people."""
DURATIONS = {"lag_ms", "oldest_unloaded_age_ms"}


def test_every_column_in_milliseconds_is_a_time_or_a_known_duration() -> None:
    """Nobody is shown raw milliseconds."""
    fields = [re.findall(r"^    (\w+_ms): ", (SOURCE / name).read_text(), re.MULTILINE) for name in RECORDS]
    named = [re.findall(r'"(\w+_ms)"', path.read_text()) for path in sorted((SOURCE / "cli").glob("*.py"))]
    columns = {name for names in [*fields, *named] for name in names} - set(TIME_NAMES) - DURATIONS
    assert {"needed_until_ms", "not_after_ms"} <= columns
    assert [name for name in sorted(columns) if not name.endswith(TIME_NAMES)] == []
    assert show("needed_until_ms", 1_767_225_600_000) == "2026-01-01 00:00:00Z"


class Long(Struct):
    fingerprint: str


def test_a_field_wider_than_the_terminal_is_folded_and_not_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every digit of a fingerprint is there."""
    monkeypatch.setattr(console_output, "console", lambda: Console(width=40))
    print_fields(Long("0123456789abcdef" * 4))
    shown = capsys.readouterr().out.removeprefix("fingerprint")
    assert "".join(shown.split()) == "0123456789abcdef" * 4


def test_the_id_of_a_root_key_has_the_name_that_commands_take() -> None:
    """`key` alone could be any."""
    assert (label("key_id"), label("device_id"), label("sent_at_ms")) == ("kid", "device", "sent at")
