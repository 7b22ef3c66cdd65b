"""What the demo says of the kills it was asked for, and of a report that cannot be written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleetgate.cli.demo import _kills
from fleetgate.demo.reconcile import Report
from fleetgate.demo.stage import Plan

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
