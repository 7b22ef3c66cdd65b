"""The whole gate with a fleet and attackers, killed in the middle: what a newcomer sees first has to be true."""

from __future__ import annotations

from pathlib import Path

from tests.demo import assert_nothing_lost, run_demo

KINDS = {
    "replay", "forged_mac", "other_credential", "other_tenant", "revoked", "malformed_envelope", "malformed_body",
    "future_clock", "stale_epoch", "equivocation", "oversized", "flood", "fuzz",
}  # fmt: skip


def test_a_demo_with_both_processes_killed_loses_nothing_and_catches_everything(tmp_path: Path) -> None:
    """kill -9 of the edge and of load in the middle change none of the report's zeros; every attack is caught."""
    options = ("--vehicles", "40", "--seconds", "14", "--kill-edge-at", "5", "--kill-load-at", "8", "--seed", "7")
    status, report, told = run_demo(tmp_path / "demo", *options)
    assert_nothing_lost(report)
    assert set(report["attacks"]) == KINDS
    uncaught = {kind: counts for kind, counts in report["attacks"].items() if counts["caught"] != counts["sent"]}
    assert uncaught == {}
    assert all(counts["sent"] > 0 for counts in report["attacks"].values())
    assert report["quarantined"]["actual"] == report["quarantined"]["expected"] != []
    assert set(report["killed_at_s"]) == {"edge", "load"}
    assert "edge was killed (kill -9) after" in told
    assert status == 0, told
