"""Workers that somebody started elsewhere: what each costs, and at the end its journal, come to the master by locust.

Decides what is sent and when everything is there. A worker whose directory is the master's sends no journal.
"""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
from loadtest import sampler
from loadtest.samples import WORKERS

if TYPE_CHECKING:  # whoever imports locust has its sockets and threads patched
    from locust.runners import MasterRunner, WorkerRunner

MESSAGE = "journal"
ARRIVE_SECONDS = 120.0
_PART_BYTES = 1 << 20
# What a worker says becomes a file's name.
_JOURNAL = re.compile(r"acks-[0-9]{1,6}(-[0-9]{1,6})?\.(bin|jsonl)")


def elsewhere(run_directory: Path) -> bool:
    """Whether this process writes into another directory than the master's, on whose machine the sampler runs."""
    return not (run_directory / sampler.FILE).exists()


def send_journal(runner: WorkerRunner, run_directory: Path, name: str) -> None:
    """The journal of this worker, and last that this was all."""
    if elsewhere(run_directory):
        for file in (run_directory / f"acks-{name}.bin", run_directory / f"acks-{name}.jsonl"):
            with file.open("rb") as journal:
                while part := journal.read(_PART_BYTES):
                    runner.send_message(MESSAGE, {"file": file.name, "part": part})
                    gevent.sleep(0)  # heartbeats, or the master gives it up
    runner.send_message(MESSAGE, {})


def cost() -> dict[str, Any]:
    """What goes with the statistics of each report, beside locust's own."""
    return {"at_s": time.time(), "cost": sampler.cost(os.getpid())}


class Gathering:
    """The master's side."""

    def __init__(self, run_directory: Path) -> None:
        self._directory = run_directory
        self._arrived = 0

    def receive(self, said: dict[str, Any]) -> None:
        """A part of a journal, or its end. Raises ValueError for a name that is none."""
        if not said:
            self._arrived += 1
            return
        if not _JOURNAL.fullmatch(said["file"]):
            raise ValueError(f"a worker sent a file {said['file']!r}, which is no journal")
        with (self._directory / said["file"]).open("ab") as journal:
            journal.write(said["part"])

    def note_cost(self, worker: str, reported: dict[str, Any]) -> None:
        """A report of a worker, which may have its cost with it."""
        if reported.get("cost") is not None:
            look = {"at_s": reported["at_s"], "processes": {f"generator-{worker}": reported["cost"]}}
            with (self._directory / WORKERS).open("a") as file:
                file.write(json.dumps(look) + "\n")

    def finish(self, runner: MasterRunner) -> None:
        """Ends the users of all workers and waits for the journals; without it locust would be gone half a second
        after the end of the shape. What has not come by then is missing in the verdict, which says so."""
        workers = [worker.id for worker in runner.clients.all]
        expected = self._arrived + len(workers)
        runner.stop()
        deadline = time.monotonic() + ARRIVE_SECONDS
        while self._arrived < expected and time.monotonic() < deadline:
            gevent.sleep(0.1)
        options = runner.environment.parsed_options
        if options is not None and options.headless:
            for worker in workers:  # locust has forgotten those that stopped, and would leave them waiting for a minute
                runner.send_message("quit", client_id=worker)


_gathering: list[Gathering] = []


def begin(run_directory: Path) -> None:
    """Of a master that starts."""
    _gathering[:] = [Gathering(run_directory)]


def gathering() -> Gathering:
    """That of this master."""
    return _gathering[0]
