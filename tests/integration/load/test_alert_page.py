"""The page on how to investigate an alert: every command in it is run, over HTTP, as somebody who reads it would.

So are the questions to ClickHouse of the page about limits.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from fleetgate.cli.main import app
from fleetgate.cli.session import Session
from fleetgate.clock import SystemClock
from fleetgate.load.alerts import Alert, Alerts
from fleetgate.load.counts import Counts

PAGES = Path(__file__).parents[3] / "docs" / "how-to"
COMMANDS = [
    command
    for page, beginning in (("investigate-an-alert.md", "fleetgate "), ("limit-rates.md", "fleetgate db query "))
    for block in re.findall(r"^```sh\n(.*?)^```", (PAGES / page).read_text(), re.M | re.S)
    for command in block.splitlines()
    if command.startswith(beginning)
]


@pytest.fixture(scope="module")
def config(engine: Any, owner: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gate's directory whose ClickHouse is the one of these tests, with an alert that is open and one that is not."""
    directory = tmp_path_factory.mktemp("gate")
    (directory / "clickhouse.token").write_text("a reader's token")
    (directory / "clickhouse.token").chmod(0o600)
    text = f'[clickhouse]\nurl = "{owner.url}"\ndatabase = "{engine.database}"\n'
    (directory / "fleetgate.toml").write_text(text)
    now_ms = SystemClock().now_ms()
    alerts = Alerts(engine, Counts(CollectorRegistry()), SystemClock())
    for key, minutes in (("page open", 5), ("page closed", 60)):
        alert = Alert(
            key=key,
            kind="median",
            tenant="page",
            cohort="software 2\x1b[31m",
            signal="Vehicle.Speed",
            before=51.25,
            after=31.75,
            vehicles=142,
            opened_at_ms=now_ms - minutes * 60_000,
        )
        alerts.open(alert)
    alerts.close("page closed", now_ms)
    return directory / "fleetgate.toml"


def run(config: Path, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["--config", str(config), *arguments], obj=Session())
    assert done.exit_code == 0, (arguments, done.output, done.exception)
    return done.output


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_every_command_of_the_page_runs(config: Path, command: str) -> None:
    """Whatever is in the tables, none of them is an error."""
    assert run(config, *shlex.split(command)[1:])


def test_alerts_are_listed_for_a_person_and_for_a_program(config: Path) -> None:
    """Open ones alone, or all; nothing that a device chose reaches the terminal."""
    table = run(config, "alerts")
    [line] = [line for line in table.splitlines() if "page" in line]
    assert [word in line for word in ("median", "software 2", "Vehicle.Speed", "51.25", "31.75", "142")] == [True] * 6
    assert "\x1b" not in table
    for arguments, count in ((("alerts", "--json"), 1), (("alerts", "--json", "--all"), 2)):
        found = [one for one in msgspec.json.decode(run(config, *arguments)) if one["tenant"] == "page"]
        assert len(found) == count
    assert [one["closed_at_ms"] is None for one in found] == [True, False]
