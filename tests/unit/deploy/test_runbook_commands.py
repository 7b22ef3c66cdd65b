"""What a runbook tells people to type has a form for compose, and what that asks can be reached there.

No engine is asked; what python is told to do in a container is done here, to a listener that is not ready.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry
from tests.deployed import ROOT
from tests.unit.deploy.test_containers import COMPOSE, SERVICES, settings

from fleetgate.admin import AdminServer
from fleetgate.config import host_and_port

RUNBOOKS = ROOT / "docs" / "runbooks"
README = (RUNBOOKS / "README.md").read_text().partition("## The same with compose")[2]
PAGES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:fleetgate|systemctl|journalctl|curl|df|ls|docker) [^`]+)`")
_ADDRESS = re.compile(r"\b(localhost|127\.0\.0\.1|[a-z]+):(\d{4,5})\b")
_PLACE = re.compile(r"\\\.\\\.\\\.|[A-Z]{4,}")


class Row(NamedTuple):
    """One of the table, both sides with placeholders."""

    systemd: str
    compose: str

    def fits(self, command: str) -> re.Match[str] | None:
        parts, end, named = [], 0, re.escape(self.systemd)
        for found in _PLACE.finditer(named):
            parts += [named[end : found.start()], "(.*)" if found[0].startswith("\\") else r"(\S+)"]
            end = found.end()
        return re.fullmatch("".join([*parts, named[end:]]), command)


ROWS = [Row(*found) for found in re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|$", README, re.MULTILINE)]
[ASK] = _BLOCK.findall(README)


def commands(page: Path) -> Iterator[str]:
    """Every line of its blocks, and what stands in its sentences."""
    text = page.read_text()
    for block in _BLOCK.findall(text):
        yield from block.splitlines()
    yield from (found for found in _INLINE.findall(_BLOCK.sub("", text)) if found != "systemctl status")


def form(command: str) -> str | None:
    """What is typed with compose, by the first row that fits. One that names no address says nothing of an address."""
    row = next((row for row in ROWS if row.fits(command)), None)
    known = row is not None and bool(_ADDRESS.search(command)) == bool(_ADDRESS.search(row.systemd))
    return row.compose if row is not None and known else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_runbook_has_a_form_for_compose(page: Path) -> None:
    """In the table of README.md."""
    told = list(commands(page))
    assert told
    assert [command for command in told if form(command) is None] == []


@pytest.mark.parametrize(
    "command", ["ss -tln", "fleetgate doctor devices/x --https localhost:8443", "systemctl status nginx", "df -h /"]
)
def test_a_command_without_a_form_would_be_found(command: str) -> None:
    """The row of every command of the gate does not do for one that asks an address."""
    assert form(command) is None


def test_a_row_has_the_same_placeholders_on_both_sides() -> None:
    """Whoever reads it knows what to put there."""
    for row in ROWS:
        left, right = (sorted(re.findall(r"\.\.\.|\b[A-Z]{4,}\b", side)) for side in row)
        assert left == right, row


def test_what_compose_is_told_it_understands() -> None:
    """Subcommands, options, and the services that are named."""
    lines = [*(row.compose for row in ROWS), ASK.partition(" -c ")[0]]
    told = [shlex.split(found) for line in lines for found in re.findall(r"docker compose ([^|)\"]+)", line)]
    assert len(told) > 6
    for subcommand, *rest in told:
        [service, *_] = [word for word in rest if word in SERVICES or word == "PROCESS"]
        options = {word for word in rest[: rest.index(service)] if word.startswith("--")}
        assert options <= options_of(subcommand), f"{subcommand} {rest}"


@cache
def options_of(subcommand: str) -> set[str]:
    """As the older generation of compose has them, which lacks some of the other's."""
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed")
    command = ["docker-compose", subcommand, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(re.findall(r"--[a-z-]+", done.stdout))


def reachable(service: str) -> set[str]:
    """Addresses, as a container on the networks of `operator` sees them."""
    config = settings(service)
    if not set(SERVICES["operator"]["networks"]) & set(SERVICES[service].get("networks", ())):
        return set()
    listens = {
        "edge": [config.edge.mqtt_listen, config.edge.https_listen, config.edge.admin_listen],
        "load": [config.load.admin_listen],
    }[service]
    return {f"{service}:{port}" for host, port in (host_and_port("", each) for each in listens) if host == "0.0.0.0"}


def test_what_is_asked_in_compose_can_be_reached() -> None:
    """A common network, and a listener that is not on its container's loopback alone. No network leads out."""
    asked = {":".join(found) for row in ROWS for found in _ADDRESS.findall(row.compose)}
    assert asked == {"edge:9101", "load:9102", "edge:8883"}
    assert asked <= reachable("edge") | reachable("load")
    assert set(SERVICES["operator"]["networks"]) & set(SERVICES["clickhouse"]["networks"])


def test_operator_has_no_way_out() -> None:
    """It holds every file of the gate."""
    assert all(COMPOSE["networks"][name]["internal"] for name in SERVICES["operator"]["networks"])


def test_who_is_asked_answers_when_it_is_not_ready() -> None:
    """What the function has python do: the reason is what one looks for, and comes with a status of 503."""
    script = re.search(r'-c "(.*)"; }', ASK)
    assert script is not None
    with AdminServer("x", "127.0.0.1:0", CollectorRegistry(), lambda: "the spool is full") as admin:
        host, port = admin._server.server_address[:2]
        code = script[1].replace("$1", f"{host!s}:{port}").replace("$2", "readyz")
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, '{"ready": false, "why": "the spool is full"}\n'), done.stderr
