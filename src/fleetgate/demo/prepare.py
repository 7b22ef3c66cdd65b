"""Makes a gate of its own in a directory: configuration on free ports, CA, devices, and the file for fleetsim.

Decides who takes part: honest vehicles of two tenants and, but for a scenario, one attacker of each kind.
"""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.configfile import load
from fleetgate.control.bundle import write_bundle
from fleetgate.control.devices import enrol, revoke
from fleetgate.control.keyring import Keyring
from fleetgate.control.pki import Authority
from fleetgate.control.store import Store, Write
from fleetgate.errors import ConfigError

TENANTS = ("acme", "globex")
ATTACKS = (
    "replay",
    "forged_mac",
    "other_credential",
    "other_tenant",
    "revoked",
    "malformed_envelope",
    "malformed_body",
    "future_clock",
    "stale_epoch",
    "equivocation",
    "oversized",
    "flood",
    "fuzz",
)
_NEEDS_ANOTHER = ("other_credential", "other_tenant")
_ACTOR = "demo"


def prepare(directory: Path, vehicles: int, speed: float | None = None) -> tuple[Config, Path, Path]:
    """(configuration, its file, the fleet file) of a new gate in `directory`, which must be empty or absent. With a
    `speed` it is one for a scenario, on a virtual clock so many times as fast, and has no attackers of its own."""
    if directory.exists() and any(directory.iterdir()):
        raise ConfigError(f"{directory} is not empty: the demo wants a directory of its own")
    directory.mkdir(parents=True, exist_ok=True)
    config_file = directory / "fleetgate.toml"
    config_file.write_text(_configuration(free_ports(5), speed))
    command = [sys.executable, "-m", "fleetgate.cli.main", "--config", str(config_file), "ca", "init"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise ConfigError(made.stderr.strip())
    config = load(config_file)
    fleet_file = directory / "fleet.json"
    fleet_file.write_bytes(
        msgspec.json.format(msgspec.json.encode(_enrol(config, directory, vehicles, ATTACKS if speed is None else ())))
    )
    return config, config_file, fleet_file


def _configuration(ports: list[int], speed: float | None) -> str:
    mqtt, https, edge_admin, load_admin, clickhouse = ports
    testing, edge, spool = "", "", ""
    if speed is not None:
        # Settings in seconds of the gate's clock that are meant for the machine: a segment, a control that answers.
        testing = "testing = true\n"
        edge = f"keep_alive_seconds = 65535\ncontrol_grace_seconds = {900 * max(1, round(speed))}\n"
        spool = f"\n[spool]\nsegment_seconds = {speed:.3f}\n"
    return f"""trust_domain = "fleet.example"
log_level = "warning"
{testing}
[edge]
mqtt_listen = "127.0.0.1:{mqtt}"
https_listen = "127.0.0.1:{https}"
admin_listen = "127.0.0.1:{edge_admin}"
{edge}{spool}
[load]
admin_listen = "127.0.0.1:{load_admin}"

[clickhouse]
listen = "127.0.0.1:{clickhouse}"
"""


LISTENING_PORTS = range(10_000, 32_768)
"""Below those that the kernel gives to connections that go out: an edge that starts again must find its port free."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; held open together, so that they differ."""
    found: dict[int, socket.socket] = {}
    try:
        while len(found) < count:
            port = secrets.choice(LISTENING_PORTS)
            one = socket.socket()
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                one.close()
            else:
                found[port] = one
        return list(found)
    finally:
        for one in found.values():
            one.close()


def _enrol(config: Config, directory: Path, vehicles: int, attacks: Sequence[str]) -> dict[str, object]:
    """Enrols everybody in one transaction; the content of the fleet file."""
    clock = SystemClock()
    authority = Authority.load(directory / "pki", clock)
    keyring = Keyring.load(config.path(config.edge.keyring))

    def device(write: Write, tenant: str, name: str) -> str:
        enrolment = enrol(write, authority, keyring, tenant, name)
        where = f"devices/{enrolment.device_id}"
        write_bundle(directory / where, enrolment)
        return where

    with Store.open(config, clock, write=True) as store:
        with store.write(_ACTOR) as write:
            honest = [device(write, TENANTS[i % 2], f"car-{i + 1:04d}") for i in range(vehicles)]
            victim = {tenant: device(write, tenant, f"victim-{tenant}") for tenant in TENANTS} if attacks else {}
            attackers: list[dict[str, str]] = []
            for kind in attacks:
                entry = {"kind": kind, "device": device(write, TENANTS[0], f"attacker-{kind.replace('_', '-')}")}
                if kind in _NEEDS_ANOTHER:
                    entry["other"] = victim[TENANTS[kind == "other_tenant"]]
                attackers.append(entry)
        if "revoked" in attacks:
            with store.write(_ACTOR) as write:
                revoke(write, TENANTS[0], "attacker-revoked-tcu", "the demo's stolen unit")
    return {
        "mqtt": config.edge.mqtt_listen,
        "https": config.edge.https_listen,
        "server_name": "localhost",
        "vehicles": honest,
        "attackers": attackers,
    }
