"""The reference pages say what the program says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetgate.cli.config import configuration_page, exit_codes_page
from fleetgate.config import settings

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize(
    ("page", "printed", "command"),
    [
        ("configuration.md", configuration_page, "fleetgate config show --markdown"),
        ("exit-codes.md", exit_codes_page, "fleetgate config exit-codes"),
    ],
)
def test_page_is_what_the_command_prints(page: str, printed: object, command: str) -> None:
    """A setting or error that was added, changed or removed is in the page; else print it again."""
    assert callable(printed)
    assert (REFERENCE / page).read_text() == printed(), f"print it again: {command} > docs/reference/{page}"


def test_every_setting_has_a_meaning() -> None:
    """No key is without a sentence that says what it does."""
    assert [name for name, _, meaning in settings() if not meaning.endswith(".")] == []
