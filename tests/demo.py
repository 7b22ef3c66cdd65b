"""Runs `fleetgate demo` as a person would, and gives back its report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

DEADLINE_SECONDS = 240.0


def run_demo(directory: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """(exit status, the report, what was printed) of a demo in `directory`, which is new."""
    report = directory.parent / f"{directory.name}.json"
    command = [sys.executable, "-m", "fleetgate.cli.main", "demo", "--keep", str(directory), "--report", str(report)]
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
        cwd=directory.parent,
    )
    told = done.stdout + done.stderr
    if not report.exists():
        raise AssertionError(f"the demo ended with {done.returncode} and no report:\n{told}")
    return done.returncode, msgspec.json.decode(report.read_bytes()), told


def assert_nothing_lost(report: dict[str, Any]) -> None:
    """The zeros of the report, and that the run was one: events were acknowledged, every attack was tried."""
    zeros = {name: report[name] for name in ("lost", "duplicated", "cross_tenant", "false_rejections")}
    assert zeros == {"lost": 0, "duplicated": 0, "cross_tenant": 0, "false_rejections": 0}
    assert report["acked"]["events"] > 0
    assert report["acked"]["events"] <= report["stored"]["events"]
