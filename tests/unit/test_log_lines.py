"""What stands in every line of a log, and how its event is named."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "fleetgate"
LEVELS = {"debug", "info", "warning", "error", "say"}

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


def events_in(path: Path) -> Iterator[str]:
    """The first argument of each call that logs, where it is written out there; of a choice, both."""
    for call in ast.walk(ast.parse(path.read_text())):
        if isinstance(call, ast.Call) and call.args and ast.unparse(call.func).rpartition(".")[2] in LEVELS:
            first = call.args[0]
            for each in (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,):
                if isinstance(each, ast.Constant):
                    yield str(each.value)


def test_an_event_is_a_key_and_what_is_said_of_it_stands_in_fields() -> None:
    """Whoever looks for a line in a log, or counts them, has one word for it in every room."""
    rooms = [path for path in SOURCE.rglob("*.py") if "cli" not in path.parts]  # its `say` speaks to people
    found = {event: path for path in rooms for event in events_in(path)}
    assert {"device_state", "watch_waits", "alert_closed"} <= set(found)
    assert {event: path for event, path in found.items() if re.fullmatch(r"[a-z][a-z0-9_]*", event) is None} == {}
