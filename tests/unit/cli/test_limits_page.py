"""docs/how-to/limit-rates.md: the configuration that it shows is one, and its commands run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.unit.cli.test_how_to_pages import HOW_TO, Reader

from fleetgate.config import Limits
from fleetgate.configfile import load
from fleetgate.rates import Rate, parse_rates

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell


def test_the_page_about_limits(shell: Shell) -> None:
    """Every level is shown with a limit that the gate takes; what the page calls the default is one."""
    page = "limit-rates"
    [example] = re.findall(r"^```toml\n(.*?)^```", (HOW_TO / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL)
    reader = Reader(shell, page)
    file = shell.directory / "fleetgate.toml"
    file.write_text(file.read_text() + example if file.exists() else example)
    reader.follow()
    limits = load(file, {}).limits
    assert all(getattr(limits, level) != getattr(Limits(), level) for level in Limits.__struct_fields__)
    assert limits.device.messages == Limits().device.messages
    assert parse_rates(limits.device.messages) == (Rate(1000, 5.0),)
