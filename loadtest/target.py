"""Decides which gate is loaded: one of its own, made for this run and gone after it, or one that somebody runs.

Either is named by its configuration file. The devices are prepared by the gate's own command (`fleetsim.identities`):
for one of its own anew; for another the honest ones once, to be found again by the next run, and the hostile ones for
each run, because they end in quarantine. There each of the two has a tenant of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from loadtest.bench.processes import BenchError, Process, until

from fleetgate.config import Config, load
from fleetgate.demo.figures import is_ready
from fleetgate.demo.prepare import free_ports
from fleetsim.identities import Identities

START_SECONDS = 300.0  # load gives way to everything else, and on a busy machine takes its time
OWN_TENANTS = ("acme", "globex")
GUEST_TENANT, GUEST_ATTACKERS = "loadtest", "loadtest-hostile"


class Devices(NamedTuple):
    """How many of each a run needs."""

    honest: int
    hostile: int


class Target:
    """A gate that knows the devices in `devices` and `hostile`. `processes` are those that were started here."""

    def __init__(self, file: Path, devices: Path, hostile: Path) -> None:
        """Raises ConfigError."""
        self.file, self.devices, self.hostile = file, devices, hostile
        self.config: Config = load(file)
        self.processes: dict[str, Process] = {}

    @classmethod
    def of_somebody(cls, file: Path, count: Devices) -> Self:
        """A gate that runs already, by its configuration file. Raises ConfigError, fleetsim's RunError."""
        devices, name = file.resolve().parent / "loadtest-devices", time.strftime("hostile-%Y%m%d%H%M%S", time.gmtime())
        found = cls(file, devices, devices / name)
        Identities.prepare(file, count.honest, found.devices, (GUEST_TENANT,))
        if count.hostile:
            Identities.prepare(file, count.hostile, found.hostile, (GUEST_ATTACKERS,), name)
        return found

    @classmethod
    def own(cls, directory: Path, count: Devices) -> Self:
        """A new gate in `directory`, on free ports of loopback. Raises BenchError too."""
        file = directory / "fleetgate.toml"
        file.write_text(_configuration())
        initialised = subprocess.run([*_fleetgate(file), "ca", "init"], capture_output=True, text=True, check=False)
        if initialised.returncode:
            raise BenchError(initialised.stderr.strip())
        made = cls(file, directory / "identities", directory / "hostile")
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
        for process in self.processes.values():
            process.stop()
        shutil.rmtree(self.hostile, ignore_errors=True)  # nobody is to be these again

    @property
    def listeners(self) -> dict[str, str]:
        """Admin addresses by process."""
        return {"edge": self.config.edge.admin_listen, "load": self.config.load.admin_listen}

    def options(self) -> list[str]:
        """How the generator reaches it."""
        edge, store = self.config.edge, self.config.clickhouse
        server = store.url if not store.url.startswith("chdb://") else f"http://{store.listen}"
        scheme, _, address = server.partition("://")
        return [
            *("--mqtt", edge.mqtt_listen, "--https", edge.https_listen),
            *("--devices", str(self.devices), "--hostile-devices", str(self.hostile)),
            *("--clickhouse", f"{scheme}://{store.user}@{address.rstrip('/')}/?database={store.database}"),
            *("--clickhouse-token", str(self.config.path(store.token_file))),
        ]


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
