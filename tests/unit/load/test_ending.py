"""How load ends: by SIGTERM wherever its main thread is, and by a crash, of chdb's code too."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"
DEADLINE_SECONDS = 30.0
BEGIN = """
import hashlib, os, signal, threading, time
from fleetgate import log
from fleetgate.load import ending
from fleetgate.sdnotify import ServiceManager
log.configure("load")
ending.LAST_SECONDS = 0.2
stop = threading.Event()
ending.end_when_asked(stop, ServiceManager())
"""


def status(program: str) -> int:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=SOURCE, timeout=DEADLINE_SECONDS, check=False).returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_main_thread_holds_the_events_lock(number: signal.Signals) -> None:
    """The lock is held in each `wait` for some microseconds; a handler that set the event would wait for itself."""
    held = f"with stop._cond:\n    os.kill(os.getpid(), {number})\n    sum(range(1_000_000))\n"
    assert status(f"{BEGIN}{held}raise SystemExit(0 if stop.wait(10) else 3)") == 0


def test_a_signal_while_the_main_thread_is_in_c() -> None:
    """As in an embedded ClickHouse, where no Python code of the main thread runs: given up all the same."""
    ask = "threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
    assert status(f"{BEGIN}{ask}hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)\nraise SystemExit(3)") == 0


def test_further_signals_change_nothing() -> None:
    twice = "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGINT); time.sleep(0.1)\n"
    assert status(f"{BEGIN}{twice}raise SystemExit(0 if stop.is_set() else 3)") == 0


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_ends_a_process_with_chdb(tmp_path: Path, number: signal.Signals) -> None:
    """Or a service manager would never start it again."""
    program = f"""
import os, time
from pathlib import Path
from fleetgate.load.embedded import EmbeddedClickHouse
engine = EmbeddedClickHouse(Path({str(tmp_path)!r}), "fleetgate")
os.kill(os.getpid(), {number})
time.sleep(60)
"""
    assert status(program) == -number
