"""A gate to be measured: a directory of its own, edge and load started from the command line as in production.

Of the configuration only what a benchmark must set is set: free ports, where the files lie, and rate limits above any
load. Decides how a gate is started, found ready and ended; who is enrolled is `installation`'s.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from loadtest.bench.installation import Installation
from loadtest.bench.processes import Process, Served, until
from loadtest.bench.stored import Spooled
from sqlalchemy import delete

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.configfile import load
from fleetgate.control.schema import spools
from fleetgate.control.store import Store
from fleetgate.demo.figures import is_ready
from fleetgate.demo.prepare import free_ports
from fleetgate.load.clickhouse import ServerClickHouse
from fleetgate.spool.cursor import read_cursor
from fleetgate.spool.reader import segment_paths

START_SECONDS = 120.0
SEALED_SECONDS = 20.0


class Gate:
    """Edge and load of one configuration in `directory`; a context that ends what was started in it,
    and removes it.

    `file` is the configuration. `control` is the database of devices, by default that of the installation. With
    `server` load owns no ClickHouse but expects one at the address that `config.clickhouse.listen` names.
    """

    def __init__(
        self, installation: Installation, directory: Path, control: Path | None = None, *, server: bool = False
    ) -> None:
        directory.mkdir(parents=True)
        self.directory = directory
        self.file = directory / "fleetgate.toml"
        self.file.write_text(_configuration(installation, control or installation.control, server=server))
        self.config: Config = load(self.file)
        with Store.open(self.config, SystemClock(), write=True) as store, store.write("bench") as write:
            write.execute(delete(spools))  # those of other gates: this one's disk is not a replaced one
        self.spool = self.config.path(self.config.spool.directory)
        self.devices = installation.devices
        self._processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self._processes:
            process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)  # a spool and tables of up to a GB, for each case

    def start_edge(self) -> Process:
        """The edge, once it is ready."""
        return self._start("edge", self.config.edge.admin_listen)

    def serve(self) -> Served:
        """The edge, once it is ready, how a swarm reaches it, and whether its spool has what it acknowledged."""
        edge, spooled = self.start_edge(), Spooled(self.spool)

        def check(acknowledged: int) -> None:
            until(lambda: not segment_paths(spooled.segments, ".open"), "the spool is sealed", SEALED_SECONDS, edge)
            spooled.check(acknowledged)

        return Served(edge, self.devices, self.addresses, check)

    def start_load(self) -> Process:
        """Load with its embedded ClickHouse, once it is ready."""
        return self._start("load", self.config.load.admin_listen)

    def ends(self, process: Process) -> None:
        """Ends this process too, when the gate ends."""
        self._processes.append(process)

    def _start(self, command: str, admin: str) -> Process:
        arguments = [sys.executable, "-m", "fleetgate.cli.main", "--config", str(self.file), command]
        process = Process(arguments, self.directory / f"{command}.log")
        self.ends(process)
        until(lambda: is_ready(admin), f"{command} is ready", START_SECONDS, process)
        process.ready_s = time.monotonic() - process.started_s
        return process

    @property
    def addresses(self) -> tuple[str, ...]:
        """Options of `fleetsim swarm`."""
        return ("--mqtt", self.config.edge.mqtt_listen, "--https", self.config.edge.https_listen)

    def loaded_segment(self) -> int:
        """The last segment that is safely in ClickHouse; 0 before the first."""
        cursor = read_cursor(self.spool)
        return cursor.segment if cursor is not None else 0

    def all_loaded(self) -> bool:
        """Whether everything in the spool is in ClickHouse."""
        segments = self.spool / "segments"
        if segment_paths(segments, ".open"):  # looked at first: one that is sealed meanwhile is then among the sealed
            return False
        return all(number <= self.loaded_segment() for number, _ in segment_paths(segments))

    def clickhouse(self) -> ServerClickHouse:
        """A client, by HTTP, of the ClickHouse that load owns."""
        settings = self.config.clickhouse
        token = self.config.path(settings.token_file).read_text().strip()
        return ServerClickHouse(f"http://{settings.listen}", settings.database, settings.user, token)


def _configuration(installation: Installation, control: Path, *, server: bool) -> str:
    mqtt, https, edge_admin, load_admin, clickhouse = free_ports(5)
    made = installation.directory
    url = f'url = "http://127.0.0.1:{clickhouse}"\n' if server else ""
    return f"""trust_domain = "fleet.example"
log_level = "warning"

[edge]
mqtt_listen = "127.0.0.1:{mqtt}"
https_listen = "127.0.0.1:{https}"
admin_listen = "127.0.0.1:{edge_admin}"
certificate = "{made}/pki/server.pem"
private_key = "{made}/pki/server.key"
trust_bundle = "{made}/pki/trust.pem"
keyring = "{made}/keyring.json"

[control]
url = "sqlite:///{control}"

[load]
admin_listen = "127.0.0.1:{load_admin}"

[clickhouse]
{url}listen = "127.0.0.1:{clickhouse}"

[limits.device]
messages = "1000000/s"
"""
