"""`fleetgate up`, which runs the whole gate of one machine: its children are killed, and it is killed itself."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetgate.control.signing import REQUEST_SECONDS
from fleetgate.demo.figures import is_ready
from fleetgate.load.ending import LAST_SECONDS
from tests.faults.drains import drained
from tests.faults.processes import Process, restart
from tests.faults.registry import fault
from tests.faults.trial import Trial
from tests.gate import until

CHILDREN = ("signer", "edge", "load")


@contextmanager
def _up(trial: Trial) -> Iterator[Process]:
    """`fleetgate up` on the trial's gate, in place of its three processes; they go on when it has drained."""
    drained(trial.edge, trial.home.config.edge.drain_seconds)
    drained(trial.load, LAST_SECONDS)
    drained(trial.signer, REQUEST_SECONDS)
    listens = (trial.home.config.edge.admin_listen, trial.home.config.load.admin_listen)
    log_file = trial.directory / "up.log"
    machine = Process(["fleetgate.cli.main", "up"], trial.directory, log_file, lambda: all(map(is_ready, listens)))
    try:
        restart(machine)
        yield machine
        drained(machine, trial.home.config.edge.drain_seconds + LAST_SECONDS)
    finally:
        machine.close()
    restart(trial.signer)
    restart(trial.edge)
    restart(trial.load)


@fault("`fleetgate up` with its edge and its load killed in turn: it starts them again; SIGTERM ends all three with 0.")
def up_with_killed_children(trial: Trial) -> None:
    with _up(trial) as machine:
        for child in ("edge", "load", "edge"):
            trial.pass_time(0.3, 1.0)
            pids = _pids(machine, child)
            os.kill(pids[-1], signal.SIGKILL)
            until(lambda: len(_pids(machine, child)) > len(pids), f"up starts {child} again", 30)  # noqa: B023
            machine.await_ready()


@fault(
    "kill -9 of `fleetgate up` itself: its children end with it, and the next one starts on the same spool and ports."
)
def up_killed(trial: Trial) -> None:
    with _up(trial) as machine:
        for _ in range(2):
            trial.pass_time(0.3, 1.0)
            children = [_pids(machine, child)[-1] for child in CHILDREN]
            machine.kill()
            until(lambda: not any(map(_lives, children)), "its children end", 5)  # noqa: B023
            restart(machine)


def _pids(machine: Process, child: str) -> list[int]:
    """Of this child, in the order of its starts."""
    return [int(pid) for pid in re.findall(rf'"child": "{child}", "pid": (\d+)', machine.log_since(0))]


def _lives(pid: int) -> bool:
    """One that has ended and was not waited for has no command line any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False
