"""What the demo says of the kills it was asked for, and of a report that cannot be written."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from rich.console import Console

from fleetgate.cli import console_output
from fleetgate.cli.demo import _kills, _tell
from fleetgate.config import Config
from fleetgate.demo import figures, scenario, stage
from fleetgate.demo.figures import Figures
from fleetgate.demo.reconcile import Attack, Count, Report
from fleetgate.demo.stage import Plan, Screen

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell


def test_a_kill_is_told_with_its_time_and_one_that_did_not_happen_too() -> None:
    """A kill after the fleet's end proves nothing, and is not taken for one that was survived."""
    told = _kills(Plan(30.0, 1, 0.5, 10.0, 40.0), Report(killed_at_s={"edge": 10.0}))
    assert told == [
        "edge was killed (kill -9) after 10.0 s, and started again",
        "load was not killed: at 40 s the fleet had ended, or load was not running",
    ]


def test_without_a_kill_nothing_is_said() -> None:
    """A plain demo has no line of it."""
    assert _kills(Plan(30.0, 1, 0.5, None, None), Report()) == []


def test_a_report_without_a_place_is_told_before_the_run(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is made for it."""
    monkeypatch.setenv("TMPDIR", str(shell.directory))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert shell.run("demo", "--report", "no/such/directory/report.json") == 2
    assert "--report: cannot write no/such/directory/report.json" in shell.err
    assert list(shell.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--scenario", "clone", "--seconds", "10"), "--seconds: a scenario goes as it is written"),
        (("--scenario", "clone", "--interval", "1", "--kill-edge-at", "5"), "--interval, --kill-edge-at: a scenario"),
        (("--scenario", "clone", "--kill-load-at", "5"), "--kill-load-at: a scenario"),
        (("--speed", "5"), "--speed is for a scenario"),
    ],
)
def test_an_option_that_the_run_would_not_heed_is_refused(shell: Shell, options: tuple[str, ...], says: str) -> None:
    """Before anything is made."""
    assert shell.run("demo", *options) == 2
    assert says in shell.err


def test_without_a_terminal_a_line_of_progress_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is, with the thousands apart."""
    edge = {
        ("fleetgate_messages_total", (("outcome", "accepted"),)): 2312.0,
        ("fleetgate_events_total", ()): 4321.0,
    }
    monkeypatch.setattr(figures, "scrape", lambda listen: edge if listen == Config().edge.admin_listen else {})
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    trio.run(Screen(console_output.console(), Figures(Config())).refresh, "the fleet is driving")
    assert printed.getvalue().count("\n") == 1
    assert "accepted so far 2,312 messages with 4,321 events" in printed.getvalue()


def test_every_number_of_the_result_has_a_heading() -> None:
    """Of messages and events, of attacks, and of times."""
    report = Report(sent=Count(1234, 5678), attacks={"replay": Attack(36, 35)})
    printed = io.StringIO()
    _tell(Console(file=printed, width=100), report)
    told = printed.getvalue()
    for heading in ("messages", "events", "hostile acts", "caught", "half within", "99 % within"):
        assert heading in told
    [replay] = [line for line in told.splitlines() if "replay" in line]
    assert replay.replace("│", " ").split()[1:] == ["36", "35"]


def test_load_is_waited_for_as_long_as_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that is; and no longer than told once it does not."""
    rows = iter([*range(20), *[19] * 1000])
    monkeypatch.setattr(stage, "_loaded", lambda _: False)
    monkeypatch.setattr(stage, "read_cursor", lambda _: None)

    class Screening:
        rows_loaded = 0
        looks = 0

        async def refresh(self, _: str) -> None:
            self.rows_loaded = next(rows)
            self.looks += 1

    screen = Screening()

    async def wait() -> bool:
        return await stage.until_loaded(Config(), screen, 3.0)  # type: ignore[arg-type]

    assert trio.run(wait, clock=trio.testing.MockClock(autojump_threshold=0)) is False
    assert 24 <= screen.looks <= 30


def test_a_scenario_says_how_many_vehicles_it_needs() -> None:
    """As the simulator has it."""
    assert scenario.find("unit-mixup", 60, None).least_vehicles == 600


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_demo_that_somebody_ends_leaves_nothing(shell: Shell, how: signal.Signals) -> None:
    """Its directory goes as at its own end."""
    environment = {**os.environ, "TMPDIR": str(shell.directory)}
    command = [sys.executable, "-m", "fleetgate.cli.main", "demo", "--vehicles", "2"]
    demo = subprocess.Popen(
        command, cwd=shell.directory, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + 60
        while not list(shell.directory.glob("fleetgate-demo-*/fleetgate.toml")) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        assert list(shell.directory.glob("fleetgate-demo-*"))
        demo.send_signal(how)
        assert demo.wait(90) != 0
    finally:
        demo.kill()
        demo.wait()
    assert list(shell.directory.glob("fleetgate-demo-*")) == []
