"""Two workers that somebody starts by hand, one of them on a disk of its own: the verdict knows what both sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from loadtest.remote import Gathering
from loadtest.run import ROOT
from tests.gate import until

from fleetgate.demo.prepare import free_ports

WORKER = "-m", "locust", "--config", "loadtest/locust.conf", "--worker", "--master-host", "127.0.0.1", "--master-port"


def may_mount(directory: Path) -> bool:
    """Whether this user may have a disk that only one process sees."""
    tried = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(directory)], capture_output=True)
    return tried.returncode == 0


@contextmanager
def worker(port: str, *before: str) -> Iterator[None]:
    """A worker, which ends by itself when the master does."""
    with subprocess.Popen([*before, sys.executable, *WORKER, port], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            yield
            process.wait(60)
        finally:
            process.kill()


def test_what_workers_elsewhere_sent_is_in_the_verdict(tmp_path: Path) -> None:
    """Their journals and what they cost come to the master; the one that shares its disk sends nothing twice."""
    runs = tmp_path / "runs"
    runs.mkdir()
    if not may_mount(runs):
        pytest.skip("a disk of its own for a worker needs unshare and root")
    [port] = map(str, free_ports(1))
    command = [
        *(sys.executable, "-m", "loadtest.run", "--shape", "soak", "--users", "8", "--minutes", "0.15"),
        *("--workers", "2", "--runs", str(runs)),
    ]
    environment = os.environ | {"LOCUST_MASTER_BIND_PORT": port}
    said = tmp_path / "said.txt"
    with said.open("wb") as file, ExitStack() as ending:
        run = ending.enter_context(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file))
        ending.callback(run.kill)
        until(lambda: "waiting for 2 workers" in said.read_text() or run.poll() is not None, "it waits for them", 120)
        [directory] = runs.glob("2*")
        elsewhere = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {directory} && exec "$@"', "sh")
        ending.enter_context(worker(port))
        ending.enter_context(worker(port, *elsewhere))
        status = run.wait(240)
    assert status in (0, 1, 3), said.read_text()  # how fast a busy machine is, is not what this is about
    assert {path.name for path in directory.glob("acks-*")} == {
        *("acks-0.bin", "acks-0.jsonl", "acks-1.bin", "acks-1.jsonl"),
    }
    verdict = json.loads((directory / "verdict.json").read_text())
    assert not [reason for reason in verdict["invalid"] if "journal" in reason or "measured" in reason]
    stored = verdict["reconciliation"]
    assert stored["acknowledged"] == stored["stored"] > 0
    assert (stored["lost"], stored["unexpected"]) == (0, 0)
    told = [json.loads(line) for line in (directory / "workers.jsonl").read_text().splitlines()]
    workers = {name for look in told for name in look["processes"]}
    assert len(workers) == 2
    assert {name for name in verdict["processes"] if name.startswith("generator")} == workers | {"generator"}


@pytest.mark.parametrize("name", ["../fleetgate.toml", "acks-0.bin/../x", "run.json", "acks-.bin"])
def test_a_worker_writes_journals_and_nothing_else(name: str, tmp_path: Path) -> None:
    """Whoever reaches the master's port may say what it likes."""
    with pytest.raises(ValueError, match="which is no journal"):
        Gathering(tmp_path).receive({"file": name, "part": b"x"})
    assert list(tmp_path.iterdir()) == []
