"""`make loadtest` as a newcomer calls it, only smaller: a gate, its devices, locust in two processes, and a verdict."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
# The page's first command has 500 users for three minutes.
WORDS = ("--shape", "rush-hour", "--users", "8", "--minutes", "0.1", "--processes", "2")


def test_a_run_from_the_command_line_is_reconciled(tmp_path: Path) -> None:
    """Nothing acknowledged is missing in ClickHouse or there twice, and the files of the page are there.

    The status may be 3: on a busy machine this small generator is its own bottleneck, which is no fault of the gate.
    """
    thresholds = tmp_path / "thresholds.toml"
    text = (ROOT / "loadtest" / "thresholds.toml").read_text()
    thresholds.write_text(text.replace("ack_p99_ms = 500 ", "ack_p99_ms = 60000 "))
    command = [sys.executable, "-m", "loadtest.run", *WORDS, "--runs", str(tmp_path), "--thresholds", str(thresholds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    [run] = [path for path in tmp_path.iterdir() if path.is_dir()]
    verdict = json.loads((run / "verdict.json").read_text())
    stored = verdict["reconciliation"]
    assert stored["acknowledged"] == stored["stored"] > 0
    assert (stored["lost"], stored["duplicated"], stored["unexpected"]) == (0, 0, 0)
    for name in ("summary.html", "report.html", "requests_stats.csv", "acks-0.bin", "acks-1.bin", "gate.jsonl"):
        assert (run / name).stat().st_size > 0, name
    facts = json.loads((run / "run.json").read_text())
    assert (facts["shape"], facts["processes"]) == ("rush-hour", 2)


def test_a_shape_that_is_not_there_ends_before_anything_is_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "loadtest.run", "--shape", "rush", "--runs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "rush-hour" in done.stderr
    assert list(tmp_path.iterdir()) == []
