"""A scenario end to end: gate, simulator and score as processes on one virtual clock."""

from __future__ import annotations

import json
from pathlib import Path

from tests.demo import run_demo


def test_a_scenario_runs_on_a_virtual_clock_and_is_scored(tmp_path: Path) -> None:
    """A quarter of an hour of 40 cars in seconds, three of them copied while they run or rest: the copy of a running
    unit's memory repeats its numbers with other content and is quarantined; no honest car is."""
    options = ("--scenario", "clone", "--vehicles", "40", "--speed", "90", "--seed", "3")
    _, score, told = run_demo(tmp_path / "demo", *options)
    assert score["scenario"] == "clone"
    assert score["sends"] > 500
    kinds = {kind["what"]: kind for kind in score["kinds"]}
    assert kinds["clone_memory"]["detected"] == kinds["clone_memory"]["devices"] > 0
    assert score["quarantined"] == []
    assert "detection rate" in told
    decided = json.loads((tmp_path / "demo" / "decisions.json").read_text())
    assert {"transitions", "alerts"} == set(decided)
