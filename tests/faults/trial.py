"""One fault's trial: a gate of its own, a fleet that sends all the while, and the reckoning at the end.

Decides the order: ClickHouse, edge and load, the fleet; then the fault; then fresh events must flow, everything must
get its answer and be loaded, and the oracle is asked. A fault gets the trial and breaks what it likes in it, but leaves
it mended: edge, load and ClickHouse running.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from fleetgate import configfile
from fleetgate.demo.prepare import free_ports
from fleetgate.load.clickhouse import ClickHouse, ServerClickHouse
from fleetgate.load.endpoint import reader
from fleetgate.spool.cursor import read_cursor
from fleetgate.spool.reader import segment_paths
from tests.faults import chain
from tests.faults.clickhouse import Server
from tests.faults.fleet import Fleet
from tests.faults.journal import read
from tests.faults.oracle import Copy, Excuse, Reckoning, Refusals, Release, reckon
from tests.faults.processes import Process, load_process, signer_process
from tests.faults.proxy import Proxy
from tests.faults.stored import Stored
from tests.gate import Gate, Installation, until, until_stuck

LOADED_SECONDS = 90.0

Settings = Mapping[str, Mapping[str, Any]]


class Fault(NamedTuple):
    """`what` is the sentence that docs/explanation/durability.md has of it, `strike` breaks and mends. `quick` ones run
    in `make test`; in an `embedded` one load owns its ClickHouse; `settings` are tables of the gate's configuration."""

    name: str
    what: str
    strike: Callable[[Trial], None]
    quick: bool = False
    embedded: bool = False
    settings: Settings = MappingProxyType({})


class Trial:
    """`edge` and `load` are the gate's processes, `proxy` stands before the ClickHouse at `server`; `rng` chooses the
    moments. `set_aside` and `refusals_aside`: what the fault destroys on the disk; `excuses`: refusals that it brings
    with it; `spools`: the identities that the spool had; `releases`: what people decided: see the oracle. `bystanders`
    are devices beside the fleet."""

    def __init__(self, fault: Fault, authority: Installation, server: Server, directory: Path, seed: int) -> None:
        self.fault = fault
        self.rng = random.Random(f"{seed} {fault.name}")
        self.directory = directory
        self.server = server
        self.database = f"fault_{os.getpid()}_{fault.name}"
        self.proxy = Proxy(server.address)
        self.home = authority.copy(directory)
        self._configure()
        self.edge = Gate(self.home)
        self.load: Process = load_process(directory, self.home.config.load.admin_listen)
        self.signer = signer_process(directory, self.home.config.path(self.home.config.signer.socket))
        self.fleet = Fleet(self.edge, f"{seed} {fault.name}")
        self.set_aside: set[Copy] = set()
        self.refusals_aside: Counter[Refusals] = Counter()
        self.excuses: list[Excuse] = []
        self.spools: list[str] = []
        self.releases: list[Release] = []
        self.bystanders: set[tuple[str, str, str]] = set()

    @property
    def spool(self) -> Path:
        return self.home.config.path(self.home.config.spool.directory)

    def _configure(self) -> None:
        mqtt, https, edge_admin, load_admin, listen = free_ports(5)
        clickhouse: dict[str, Any] = {"listen": f"127.0.0.1:{listen}", "database": self.database}
        if not self.fault.embedded:
            clickhouse |= {"url": self.proxy.url, "token_file": "password"}
            password = self.directory / "password"
            password.touch(0o600)
            password.write_text(self.server.password)
        tables: dict[str, dict[str, Any]] = {
            "edge": {
                "mqtt_listen": f"127.0.0.1:{mqtt}",
                "https_listen": f"127.0.0.1:{https}",
                "admin_listen": f"127.0.0.1:{edge_admin}",
            },
            # Small and often, so that each step of the spool's life happens several times in each trial.
            "spool": {"min_free_bytes": 0, "segment_seconds": 0.3, "checkpoint_seconds": 1.0},
            "load": {"admin_listen": f"127.0.0.1:{load_admin}", "retry_seconds": 0.5},
            "clickhouse": clickhouse,
            "policy": {"refused_per_second": 1e6},  # the suspect is refused all the time, on purpose
            # Every car repeats what was acknowledged, so that enough repeats are seen; only the suspect is to be held.
            "policy.signals.replay": {"weight": 0.0},
        }
        for table, keys in self.fault.settings.items():
            tables[table] = tables.get(table, {}) | dict(keys)
        lines = ["testing = true"]
        for table, keys in tables.items():
            lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        file = self.directory / "fleetgate.toml"
        file.write_text("\n".join(lines) + "\n")
        self.home.config = configfile.load(file, {})

    # Its course.

    def begin(self) -> None:
        if not self.fault.embedded:
            self.server.create(self.database)
        for process in (self.signer, self.edge, self.load):
            process.launch()
        for process in (self.signer, self.edge, self.load):
            process.await_ready()
        self.fleet.start()

    def end(self) -> Reckoning:
        """Fresh events, every answer, everything loaded; then the oracle; then both processes end as they should."""
        fresh_s = self.fleet.fresh()
        self.fleet.enough()
        trouble = self.fleet.finish()
        self.await_loaded()
        clickhouse = self.clickhouse()
        found = self.reckon(clickhouse)
        found.fresh_s = fresh_s
        found.complain("troubles of cars", trouble)
        found.complain("secrets or tracebacks in the edge's log", self.edge.leaks())
        if self.fault.embedded:
            clickhouse.close()
        # Load has the last of its segments signed when it ends, so the signer ends behind it.
        for name, process in (("edge", self.edge), ("load", self.load), ("signer", self.signer)):
            status = process.terminate()
            found.complain(f"{name} ended on SIGTERM with a status", [status] if status else [])
        chain.check(self.directory, self.fault.embedded, self.spools[:-1], found.complain)
        return found

    def reckon(self, clickhouse: ClickHouse) -> Reckoning:
        journal = read(self.fleet.journal_path)
        cars, aside = self.fleet.cars | self.bystanders, frozenset(self.set_aside)
        return reckon(
            journal, Stored(clickhouse), cars, aside, self.refusals_aside, self.excuses, self.spools, self.releases
        )

    def close(self) -> None:
        self.fleet.stop()
        self.edge.close()
        self.load.close()
        self.signer.close()
        self.proxy.close()
        if not self.fault.embedded:
            self.server.drop(self.database)

    # What faults need.

    def clickhouse(self) -> ServerClickHouse:
        """ClickHouse past the proxy; of an embedded one a reader, to be closed."""
        return reader(self.home.config) if self.fault.embedded else self.server.client(self.database)

    def pass_time(self, least_s: float, most_s: float) -> None:
        """A random while, in which the fleet sends."""
        time.sleep(self.rng.uniform(least_s, most_s))

    def skip(self, why: str) -> None:
        """Ends the trial of a fault that cannot be had here."""
        pytest.skip(why)

    def loaded_segment(self) -> int:
        cursor = read_cursor(self.spool)
        return cursor.segment if cursor is not None else 0

    def await_progress(self) -> None:
        """Waits until load has taken some more segments."""
        before = self.loaded_segment()
        until(lambda: self.loaded_segment() > before + 1, "load goes on", LOADED_SECONDS)

    def await_loaded(self) -> None:
        """Waits until everything that was sealed is in ClickHouse, and nothing is left unsealed."""
        segments = self.spool / "segments"

        def loaded() -> bool:
            open_before = segment_paths(segments, ".open")
            through = self.loaded_segment()
            return not open_before and all(number <= through for number, _ in segment_paths(segments))

        self.await_load(loaded, "everything is loaded")

    def await_load(self, found: Callable[[], bool], what: str) -> None:
        """Waits for it as long as load gets on."""
        until_stuck(found, self.loaded_segment, what, LOADED_SECONDS)
