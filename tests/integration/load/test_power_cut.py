"""A power cut on ClickHouse's machine takes the end of its memory of tokens, and doubles nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.load.test_exactly_once import ONCE


@pytest.mark.parametrize(("table", "damage"), [("events", "gone"), ("received_ranges", "zeros"), ("segments", "half")])
def test_a_segment_in_hand_is_there_once(tmp_path: Path, table: str, damage: str) -> None:
    """However far it was, and whatever is left of the logs of all tables and rollups."""
    command = [sys.executable, "-m", "tests.integration.load.power_cut", str(tmp_path), table, damage]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    rows = {name: 2 * count for name, count in ONCE.items() if isinstance(count, int)}
    assert json.loads(run.stdout.splitlines()[-1]) == rows | {"rollup": ONCE["rollup"], "fleet": [[6, 6, 2]]}
