"""One embedded ClickHouse for all of these tests (it starts slowly, and a process can own only one directory), with its
HTTP interface. Each test has a spool, and so rows, of its own; those of a file are gone before the next one: with
every part that lies there, a mutation takes longer. With CLICKHOUSE_URL set, a real server is used instead.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.segments import SpoolOnDisk

from fleetgate.catalogue import catalogue
from fleetgate.clock import SystemClock
from fleetgate.config import Policy
from fleetgate.control.releases import Release
from fleetgate.errors import ControlAway
from fleetgate.load.alerts import Alerts
from fleetgate.load.clickhouse import ClickHouse, ServerClickHouse
from fleetgate.load.counts import Counts
from fleetgate.load.embedded import EmbeddedClickHouse
from fleetgate.load.handover import Handover
from fleetgate.load.inserts import Inserts
from fleetgate.load.loader import Loader, Settings
from fleetgate.load.migrations import migrate
from fleetgate.load.owner import Owner
from fleetgate.load.patience import Patience
from fleetgate.load.progress import Progress
from fleetgate.load.release import Releases
from fleetgate.load.suspects import Suspects
from fleetgate.load.transitions import Transitions
from fleetgate.sdnotify import ServiceManager
from fleetgate.spool.format import AlertRecord, TransitionRecord

DATABASE = "fleetgate_test"
READER, WRITER = "a reader's token", "a writer's token"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    embedded = EmbeddedClickHouse(tmp_path_factory.mktemp("clickhouse"), DATABASE)
    migrate(embedded, catalogue(), 7)
    yield embedded
    embedded.close()


@pytest.fixture(scope="session")
def owner(engine: EmbeddedClickHouse) -> Iterator[Owner]:
    served = Owner(engine, "127.0.0.1:0", READER, WRITER)
    yield served
    served.close()


BOTH_WAYS = ("test_exactly_once", "test_poison", "test_retry")
"""What travels otherwise over HTTP is an insert and its failure: these try both ways. A real server gets every test."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "clickhouse" in metafunc.fixturenames:
        both = "CLICKHOUSE_URL" in os.environ or metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS
        ways = ["embedded", "http"] if both else ["embedded"]
        metafunc.parametrize("clickhouse", ways, indirect=True, scope="session")


@pytest.fixture(scope="session")
def clickhouse(request: pytest.FixtureRequest) -> Iterator[ClickHouse]:
    """What the loader inserts into: chdb itself, and the same through HTTP as it would be a server."""
    if request.param == "embedded":
        yield request.getfixturevalue("engine")
        return
    url = os.environ.get("CLICKHOUSE_URL")
    if url is None:
        server = ServerClickHouse(request.getfixturevalue("owner").url, DATABASE, "default", WRITER)
    else:
        server = ServerClickHouse(url, DATABASE, "default", os.environ.get("CLICKHOUSE_PASSWORD", ""))
    migrate(server, catalogue(), 7)
    yield server
    server.close()


TABLES = (
    *("events", "held_events", "raw_messages", "rejections", "received_ranges", "pulses", "segments", "segment_heads"),
    *("signal_minute", "fleet_minute"),
)


@pytest.fixture(scope="module")
def tables(engine: EmbeddedClickHouse) -> Iterator[None]:
    """Those of the rows that a file's tests load, emptied at its end."""
    yield
    for table in TABLES:
        engine.command(f"TRUNCATE TABLE {table}")


class Bench:
    """A spool, a loader on it, and what it handed to control."""

    def __init__(self, directory: Path, name: str, clickhouse: ClickHouse) -> None:
        self.spool = SpoolOnDisk(directory / "spool", name)
        self.clickhouse = clickhouse
        self.transitions: list[tuple[int, str]] = []
        self.noted_alerts: list[AlertRecord] = []
        self.begun: list[tuple[str, int]] = []
        self.noted: list[tuple[str, int, int]] = []
        self.control_away = 0
        self.decided: list[Release] = []  # what the records of control say
        self.loader = self.restart()

    def restart(self, clickhouse: ClickHouse | None = None, stop: Any = None) -> Loader:
        """A loader as a new process has it: nothing in memory, the cursor on disk."""
        counts = Counts(CollectorRegistry())
        settings = Settings(self.spool.directory)
        self.inserts = Inserts(clickhouse or self.clickhouse, counts, self.spool.directory)
        stop = stop or threading.Event()
        transitions = Transitions(self.spool.directory, self._note, self.noted_alerts.append, counts, stop)
        alerts = Alerts(clickhouse or self.clickhouse, counts, SystemClock())
        progress = self.progress = Progress(self.begin, lambda *told: self.noted.append(told))
        clock = SystemClock()
        releases = Releases(clickhouse or self.clickhouse, self.since, self.of, counts, clock)
        suspects = Suspects(lambda *_: None, lambda _: {}, Policy().signals)
        handover = Handover(transitions, alerts, suspects, progress, releases)
        self.patience = Patience(0.05, transitions.hand_on_waiting, counts, os.urandom, stop, ServiceManager({}))
        self.loader = Loader(settings, self.inserts, catalogue(), handover, self.patience, counts, clock, stop)
        return self.loader

    def _note(self, _spool: str, segment: int, _offset: int, record: TransitionRecord) -> str:
        self.transitions.append((segment, record.device_id))
        return "applied"

    def since(self, decision_id: int) -> list[Release]:
        return [release for release in self.decided if release.decision_id >= decision_id]

    def of(self, tenant: str, device_id: str) -> list[Release]:
        return [release for release in self.decided if (release.tenant, release.device_id) == (tenant, device_id)]

    def begin(self, spool: str, _former: Sequence[str]) -> None:
        """Notes the spool, and how many rows `segments` had of it; away for the first `control_away` times."""
        if self.control_away:
            self.control_away -= 1
            raise ControlAway("control does not answer")
        self.begun.append((spool, self.count("segments")))

    def vehicle(self, name: str) -> str:
        """A vehicle that no other test has."""
        return f"{self.spool.identity.hex()[:8]}-{name}"

    def count(self, table: str) -> int:
        """The rows of this bench's spool."""
        sql = f"SELECT count() FROM {table} WHERE spool = {{spool:String}}"
        [[found]] = self.clickhouse.rows(sql, {"spool": self.spool.identity.hex()})
        return int(found)

    def load_all(self) -> None:
        while self.loader.step():
            pass


@pytest.fixture
def bench(tmp_path: Path, request: pytest.FixtureRequest, clickhouse: ClickHouse, tables: None) -> Bench:
    return Bench(tmp_path, request.node.nodeid, clickhouse)
