"""What a table shows of a value."""

from __future__ import annotations

import pytest

from fleetgate.cli.console_output import cell
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
