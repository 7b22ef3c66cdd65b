"""What a benchmark starts ends with it, and says its last words when it is waited for in vain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from loadtest.bench.processes import BenchError, Process, Swarm, until

ROOT = Path(__file__).resolve().parents[3]
SLEEPER = [sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(60)"]
PARENT = f"""
import time
from pathlib import Path
from loadtest.bench.processes import Process
print(Process({SLEEPER!r}, Path("log")).pid, flush=True)
time.sleep(60)
"""


def gone(pid: int) -> Callable[[], bool]:
    def met() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    return met


def test_a_process_does_not_outlive_a_benchmark_that_was_killed(tmp_path: Path) -> None:
    """`kill -9` leaves nobody to end it: the kernel does."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    until(gone(child), "the child has ended", 20)


def test_a_swarm_ends_with_its_block(tmp_path: Path) -> None:
    """Whatever is raised in it; a swarm that is not waited for would go on for minutes."""
    (tmp_path / "devices").mkdir()
    with pytest.raises(RuntimeError, match="something else"), Swarm(tmp_path / "devices", [], 60, print) as swarm:
        raise RuntimeError("something else")
    assert swarm._child.returncode is not None


def test_a_deadline_shows_the_last_words_of_the_process(tmp_path: Path) -> None:
    """Without them a person would have to find a log that is removed with the case."""
    process = Process(SLEEPER, tmp_path / "log")
    try:
        until(lambda: "awake" in (tmp_path / "log").read_text(), "it is awake", 20, process)
        with pytest.raises(BenchError, match=r"it is ready: not within 0 s(.|\n)*awake"):
            until(lambda: False, "it is ready", 0.05, process)
    finally:
        process.stop()
