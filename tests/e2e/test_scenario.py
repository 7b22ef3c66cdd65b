"""A scenario end to end: gate, simulator and score as processes on one virtual clock."""

from __future__ import annotations

from pathlib import Path

from tests.demo import run_demo


def test_a_scenario_runs_on_a_virtual_clock_and_is_scored(tmp_path: Path) -> None:
    """Ten minutes of 40 cars in seconds, some of which repeat what they captured: they are quarantined, no other is."""
    options = ("--scenario", "replay-ring", "--vehicles", "40", "--speed", "40", "--seed", "3")
    status, score, told = run_demo(tmp_path / "demo", *options)
    assert (status, score["scenario"]) == (0, "replay-ring"), told
    hostile = {kind["what"]: kind for kind in score["kinds"] if kind["hostile"]}
    assert set(hostile) == {"replay_own", "replay_of_another"}
    assert all(kind["detected"] == kind["devices"] > 0 for kind in hostile.values())
    assert score["quarantined"] == []
    assert score["disorder"]["replay"] > 0
    assert "detection rate 100.0%" in told
