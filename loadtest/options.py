"""Decides what can be asked of the generator on locust's command line, and what comes of it.

Options of locust itself (--users, --processes, --csv, ...) are not repeated here; those of this file are sent to every
worker by locust.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from loadtest.generator import Plan
from loadtest.scenario import FILE, Scenario, scenario

from fleetsim.gate import Gate, address


def add_options(parser: ArgumentParser) -> None:
    """The load test's own options."""
    add = parser.add_argument_group("load test").add_argument
    add("--shape", default="ramp", help="a shape of the scenario file")
    add("--minutes", type=float, default=1.0, help="length of the run")
    add("--scenario", default=str(FILE), help="file of shapes and traffic")
    add("--devices", default="devices", help="directory of device bundles, one for each vehicle")
    add("--hostile-devices", default="hostile-devices", help="another one, for shapes with attackers")
    add("--run-directory", default="runs/latest", help="where the journals of what was sent go")
    add("--mqtt", default="127.0.0.1:8883", help="the gate's MQTT listener")
    add("--https", default="127.0.0.1:8443", help="the gate's HTTPS listener")
    add("--server-name", default="localhost", help="the name in the gate's certificate")
    add("--clickhouse", default="", help="URL of ClickHouse for query users")
    add("--clickhouse-token", default="", help="file with the password for it")
    add("--seed", type=int, default=1, help="of everything that is random")


def plan_of(options: Namespace) -> Plan:
    """Raises RunError."""
    gate = Gate(address(options.mqtt, "--mqtt"), address(options.https, "--https"), options.server_name)
    token = Path(options.clickhouse_token) if options.clickhouse_token else None
    devices, hostile = Path(options.devices), Path(options.hostile_devices)
    return Plan(gate, options.clickhouse, token, devices, hostile, Path(options.run_directory), options.seed)


def scenario_of(options: Namespace) -> Scenario:
    """Raises ScenarioError."""
    return scenario(options.shape, options.num_users or 1, options.minutes * 60, Path(options.scenario))
