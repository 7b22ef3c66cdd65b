"""What a table shows of a value."""

from __future__ import annotations

import pytest
from msgspec import Struct
from rich.console import Console

from fleetgate.cli import console_output
from fleetgate.cli.console_output import cell, label, print_fields
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


class Long(Struct):
    fingerprint: str


def test_a_field_wider_than_the_terminal_is_folded_and_not_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every digit of a fingerprint is there."""
    monkeypatch.setattr(console_output, "_console", lambda: Console(width=40))
    print_fields(Long("0123456789abcdef" * 4))
    shown = capsys.readouterr().out.removeprefix("fingerprint")
    assert "".join(shown.split()) == "0123456789abcdef" * 4


def test_the_id_of_a_root_key_has_the_name_that_commands_take() -> None:
    """`key` alone could be any."""
    assert (label("key_id"), label("device_id"), label("sent_at_ms")) == ("kid", "device", "sent at")
