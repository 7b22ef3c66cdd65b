"""What stands in every line of a log."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
from threading import Thread
from fleetgate import log
log.configure("edge")
logger = log.get("spool")
logger.info("first")
for thread in (Thread(target=logger.info, args=["other"]), Thread(target=lambda: log.get("spool").info("late"))):
    thread.start()
    thread.join()
"""


def test_every_line_names_its_process_whatever_thread_it_comes_from() -> None:
    """In a process of its own, as `configure` is called once in each."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["first", "other", "late"]
    assert {(line["process"], line["room"]) for line in lines} == {("edge", "spool")}
