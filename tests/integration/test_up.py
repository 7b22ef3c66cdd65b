"""`fleetgate up`: the processes of one machine, and what it does when they cannot start."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.gate import Gate, Installation, fleetgate, until
from tests.renewal_peer import post
from tests.renewing import new_key, request

from fleetgate.demo.figures import is_ready


def test_up_starts_a_killed_edge_again_and_a_second_up_gives_up(authority: Installation, tmp_path: Path) -> None:
    """The edge comes back on the same ports, devices renew themselves; another `up` on the gate ends and says why."""
    home = authority.copy(tmp_path / "gate")
    home.configure()
    edge, load = home.config.edge.admin_listen, home.config.load.admin_listen
    command = [sys.executable, "-m", "fleetgate.cli.main", "up"]
    log_file = tmp_path / "up.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, cwd=home.directory, stdout=log, stderr=log, start_new_session=True)
    try:
        ready(edge, load)
        [pid] = re.findall(r'"child": "edge", "pid": (\d+)', log_file.read_text())
        subprocess.run(["kill", "-9", pid], check=True)
        deadline = time.monotonic() + 30
        while log_file.read_text().count('"child": "edge", "pid"') < 2:
            assert time.monotonic() < deadline, log_file.read_text()
            time.sleep(0.05)
        ready(edge, load)
        car = home.enrol("car")
        csr = request(new_key())
        until(lambda: post(Gate(home), car, csr).status == 200, "the signer of `up` renews")
        answer = fleetgate(home.directory, "db", "query", "SELECT 52.520008 AS latitude")
        assert (answer.returncode, answer.stdout.split()) == (0, ["latitude", "52.520008"])
        second = subprocess.run(command, cwd=home.directory, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode in (2, 5)  # load says it of its port, the edge of the spool
        assert "another edge holds" in second.stderr
        assert "cannot start" in second.stderr
    finally:
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does: to all that the terminal has in the foreground
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)  # a second one changes nothing
        assert process.wait(40) == 0
    log_text = log_file.read_text()
    assert '"event": "drained"' in log_text
    assert "is not signed" not in log_text  # the signer was there until load had ended
    assert log_text.count('"child": "signer", "pid"') == 1


def test_children_end_with_an_up_that_was_killed(authority: Installation, tmp_path: Path) -> None:
    """kill -9 of `up` takes signer, edge and load along: the next one finds ports and spool free."""
    home = authority.copy(tmp_path / "gate")
    home.configure()
    log_file = tmp_path / "up.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "fleetgate.cli.main", "up"], cwd=home.directory, stderr=log)
    try:
        ready(home.config.edge.admin_listen, home.config.load.admin_listen)
    finally:
        process.kill()
        process.wait(10)
    pids = re.findall(r'"child": "(?:signer|edge|load)", "pid": (\d+)', log_file.read_text())
    assert len(pids) == 3
    until(lambda: not any(map(lives, pids)), "its children end", 5)


def lives(pid: str) -> bool:
    """Whether there is such a process; one that has ended and was not waited for has no command line any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def ready(*listeners: str) -> None:
    deadline = time.monotonic() + 40
    while not all(is_ready(listen) for listen in listeners):
        assert time.monotonic() < deadline
        time.sleep(0.05)
