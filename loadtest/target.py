"""Decides which gate is loaded: one of its own, made for this run and gone after it, or one that somebody runs.

Either is named by its configuration file. The devices are prepared by the gate's own command (`fleetsim.identities`):
for one of its own anew; for another the honest ones once, to be found again by the next run, and the hostile ones for
each run, because they end in quarantine. There each of the two has a tenant of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from loadtest.bench.processes import BenchError, Process, until
from loadtest.reconcile import quarantined

from fleetgate.config import Config
from fleetgate.configfile import load
from fleetgate.demo.figures import is_ready
from fleetgate.demo.prepare import free_ports
from fleetgate.errors import FleetgateError
from fleetgate.lock import Taken, hold
from fleetsim.identities import Identities

START_SECONDS = 300.0  # load gives way to everything else, and on a busy machine takes its time
OWN_TENANTS = ("acme", "globex")
GUEST_TENANT, GUEST_ATTACKERS = "loadtest", "loadtest-hostile"


class Devices(NamedTuple):
    """How many of each a run needs."""

    honest: int
    hostile: int


class Reach(NamedTuple):
    """What the configuration of a gate does not say to its clients. Empty: as it says."""

    host: str | None = None
    server_name: str = "localhost"
    devices: Path | None = None
    clickhouse_user: str | None = None
    clickhouse_token_file: Path | None = None


AS_CONFIGURED = Reach()


class Target:
    """A gate that knows the devices in `devices` and `hostile`. `processes` are those that were started here."""

    def __init__(self, file: Path, devices: Path, hostile: Path, reach: Reach) -> None:
        """Raises ConfigError, BenchError."""
        self.file, self.devices, self.hostile = file, devices, hostile
        self.config: Config = load(file)
        self.processes: dict[str, Process] = {}
        self._reach, self._lock = reach, -1
        self.options()  # what cannot be reached is said before anything is prepared

    @classmethod
    def of_somebody(cls, file: Path, count: Devices, reach: Reach) -> Self:
        """A gate that runs already, by its configuration file. Raises ConfigError, BenchError, fleetsim's RunError."""
        devices = reach.devices or file.resolve().parent / "loadtest-devices"
        name = time.strftime("hostile-%Y%m%d%H%M%S", time.gmtime())
        found = cls(file, devices, devices / name, reach)
        found._take()
        found._refuse_quarantined(Identities.prepare(file, count.honest, devices, (GUEST_TENANT,)), count.honest)
        if count.hostile:
            Identities.prepare(file, count.hostile, found.hostile, (GUEST_ATTACKERS,), name)
        return found

    def _take(self) -> None:
        """One run at a time is these devices: two would end each other's sessions. Raises BenchError."""
        self.devices.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = hold(self.devices, os.O_RDONLY | os.O_DIRECTORY)
        except Taken:
            raise BenchError(f"another load test runs with {self.devices}: give this one other --devices") from None

    def _refuse_quarantined(self, identities: Identities, count: int) -> None:
        """Raises BenchError: what an earlier run left would look as if this one had done it."""
        mine = {f"{one.tenant}/{one.device_id}" for one in islice(identities, count)}
        try:
            held = sorted(mine & quarantined(self.config))
        except FleetgateError:
            return  # the verdict says that nobody could look
        if held:
            raise BenchError(
                f"{len(held)} of the devices in {self.devices} are in quarantine ({held[0]}): find out why "
                "(`fleetgate quarantine list`) and release them, or give other --devices"
            )

    @classmethod
    def own(cls, directory: Path, count: Devices) -> Self:
        """A new gate in `directory`, on free ports of loopback. Raises BenchError too."""
        file = directory / "fleetgate.toml"
        file.write_text(_configuration())
        initialised = subprocess.run([*_fleetgate(file), "ca", "init"], capture_output=True, text=True, check=False)
        if initialised.returncode:
            raise BenchError(initialised.stderr.strip())
        made = cls(file, directory / "identities", directory / "hostile", AS_CONFIGURED)
        Identities.prepare(file, count.honest, made.devices, OWN_TENANTS)
        if count.hostile:
            Identities.prepare(file, count.hostile, made.hostile, OWN_TENANTS, "hostile")
        return made

    def start(self, logs: Path) -> None:
        """Everything, ready; what they say goes to files in `logs`. Raises BenchError."""
        self._process("signer", logs)  # nobody waits for it: load asks again
        for command, admin in self.listeners.items():
            self.start_one(command, admin, logs)

    def start_one(self, command: str, admin: str, logs: Path) -> Process:
        """One of them, ready. Raises BenchError."""
        process = self._process(command, logs)
        until(lambda: is_ready(admin), f"{command} is ready", START_SECONDS, process)
        return process

    def _process(self, command: str, logs: Path) -> Process:
        self.processes[command] = process = Process([*_fleetgate(self.file), command], logs / f"{command}.log")
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for process in reversed(self.processes.values()):  # load has its last heads signed
            process.stop()
        shutil.rmtree(self.hostile, ignore_errors=True)  # nobody is to be these again
        if self._lock >= 0:
            os.close(self._lock)

    @property
    def listeners(self) -> dict[str, str]:
        """Admin addresses by process."""
        return {"edge": self._at(self.config.edge.admin_listen), "load": self._at(self.config.load.admin_listen)}

    def options(self) -> list[str]:
        """How the generator reaches it. Raises BenchError."""
        edge, store, reach = self.config.edge, self.config.clickhouse, self._reach
        server = store.url if not store.url.startswith("chdb://") else f"http://{self._at(store.listen)}"
        scheme, _, address = server.partition("://")
        user = reach.clickhouse_user or store.user
        token = reach.clickhouse_token_file or self.config.path(store.token_file)
        return [
            *("--mqtt", self._at(edge.mqtt_listen), "--https", self._at(edge.https_listen)),
            *("--server-name", reach.server_name),
            *("--devices", str(self.devices), "--hostile-devices", str(self.hostile)),
            *("--clickhouse", f"{scheme}://{user}@{address.rstrip('/')}/?database={store.database}"),
            *("--clickhouse-token", str(token)),
        ]

    def _at(self, listen: str) -> str:
        """Where a client finds what listens there."""
        host, _, port = listen.rpartition(":")
        if self._reach.host is not None:
            return f"{self._reach.host}:{port}"
        if host in ("0.0.0.0", "[::]", "::", ""):  # noqa: S104  no destination
            raise BenchError(f"{self.file} listens on every address ({listen}): say with --host where the gate is")
        return listen


def _fleetgate(file: Path) -> list[str]:
    return [sys.executable, "-m", "fleetgate.cli.main", "--config", str(file)]


def _configuration() -> str:
    mqtt, https, edge, load_admin, clickhouse = free_ports(5)
    return f"""trust_domain = "fleet.example"
log_level = "warning"

[edge]
mqtt_listen = "127.0.0.1:{mqtt}"
https_listen = "127.0.0.1:{https}"
admin_listen = "127.0.0.1:{edge}"

[load]
admin_listen = "127.0.0.1:{load_admin}"

[clickhouse]
listen = "127.0.0.1:{clickhouse}"
"""
