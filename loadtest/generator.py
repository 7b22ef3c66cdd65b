"""Decides what the users of one process share, from the start of a test to its end: scenario, devices, journal, time.

One for each process of the generator and each start of a test, made by locustfile.py when locust says that the test
starts and closed when it says that it has stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from loadtest.clock import now_s
from loadtest.content import Content
from loadtest.journal import Journal
from loadtest.pool import Pool
from loadtest.scenario import Scenario

from fleetsim.gate import Gate


class Plan(NamedTuple):
    """What was asked for; the same in every process."""

    gate: Gate
    clickhouse: str  # URL, empty without
    clickhouse_token: Path | None  # the file with its password
    devices: Path
    hostile_devices: Path  # only read where the shape has attackers
    run_directory: Path
    seed: int


class Generator:
    """`index` of `processes` says which part of the devices is this process's."""

    def __init__(self, plan: Plan, scenario: Scenario, index: int, processes: int, name: str) -> None:
        """Raises PoolError; OSError for the journal and the file of the password."""
        self.plan, self.scenario = plan, scenario
        self.pool = Pool(plan.devices, index, processes)
        self.pool.check(-(-scenario.users // processes))
        # A device that attacked is in quarantine: it is nobody's to be honest with, in this run and those after it.
        self.hostile = Pool(plan.hostile_devices, index, processes) if scenario.attackers else None
        token = plan.clickhouse_token if "query" in scenario.mix else None
        self.clickhouse_password = token.read_text().strip() if token is not None else ""
        traffic = scenario.traffic
        self.content = Content(now_s(), 2 * traffic.batch * traffic.seconds_between, plan.seed)
        plan.run_directory.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(plan.run_directory, name)
        self._started_s = now_s()

    def at_s(self) -> float:
        """Seconds since the test started."""
        return now_s() - self._started_s

    def unix_s(self, at_s: float) -> float:
        """A time of the run as Unix seconds."""
        return self._started_s + at_s

    def close(self) -> None:
        """The test is over and every user has ended."""
        self.journal.close()


_running: list[Generator] = []


def begin(generator: Generator) -> None:
    """The test of this process starts."""
    _running[:] = [generator]


def end() -> None:
    """The test of this process is over; of one that did not start, too."""
    while _running:
        _running.pop().close()


def running() -> Generator:
    """The test that this process is in."""
    if not _running:
        raise RuntimeError("a user was started before the test: locust fires test_start first")
    return _running[0]
