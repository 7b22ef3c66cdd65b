"""kill -9 at moments nobody chose. The oracle is the demo's own reckoning, over real processes and a real disk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.demo import assert_nothing_lost, run_demo

SECONDS = 12.0


@pytest.mark.parametrize("victims", [("edge",), ("load",), ("edge", "load")], ids="-".join)
def test_kill(victims: tuple[str, ...], seed: int, tmp_path: Path) -> None:
    """Whatever is killed in the middle of the traffic, every acknowledged event is stored exactly once."""
    moments = random.Random(f"{seed} {victims}")
    options = ["--vehicles", "30", "--seconds", str(SECONDS), "--seed", str(seed)]
    for victim in victims:
        options += [f"--kill-{victim}-at", f"{moments.uniform(1.5, SECONDS - 1.5):.2f}"]
    status, report, told = run_demo(tmp_path / "demo", *options)
    assert_nothing_lost(report)
    assert status == 0, told
