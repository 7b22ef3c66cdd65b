"""The pages on running a gate: what they say to type are commands, of services and files that exist.

Nothing is run: that needs an engine, or a machine's own systemd.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from tests.deployed import DEPLOY, ROOT, understood
from typer.exceptions import TyperException

HOW_TO = ROOT / "docs" / "how-to"
COMPOSE = (HOW_TO / "run-with-compose.md").read_text()
SYSTEMD = (HOW_TO / "run-under-systemd.md").read_text()
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def commands(page: str, start: str) -> list[str]:
    """The rest of each line of a block that begins so."""
    found = re.findall(rf"^ {{4,}}{re.escape(start)}(.*)$", page, re.MULTILINE)
    assert found
    return found


@pytest.mark.parametrize("said", commands(COMPOSE, "docker compose run --rm operator "))
def test_what_the_operator_is_asked_for(said: str) -> None:
    """A command of the gate, with options that it has."""
    understood(f"fleetgate {said}")


@pytest.mark.parametrize("said", commands(SYSTEMD, "fleetgate "))
def test_what_is_typed_as_the_gates_user(said: str) -> None:
    """As above."""
    understood(f"fleetgate {said}")


@pytest.mark.parametrize("said", ["spool lst", "breaker", "quarantine list --devices", "device show", "db query"])
def test_what_is_no_command_would_be_found(said: str) -> None:
    """An unknown command, an unknown option, a missing value."""
    with pytest.raises(TyperException):
        understood(f"fleetgate {said}")


def test_services_that_are_named_exist() -> None:
    """In commands, and as units."""
    assert set(re.findall(r"docker compose (?:build|exec|run --rm) (\w+)", COMPOSE)) <= SERVICES.keys()
    units = {file.stem for file in (DEPLOY / "systemd").glob("*.service")}
    assert set(re.findall(r"\bfleetgate-\w+", SYSTEMD)) == units


def test_directories_that_are_made_are_those_that_are_mounted() -> None:
    """Else an engine makes them, for root, and the gate cannot write."""
    made = set(re.findall(r"gate/(\w+)", "".join(commands(COMPOSE, "sudo install -d "))))
    volumes = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    mounted = {found[1] for volume in volumes if (found := re.match(r"\$\{GATE:-./gate\}/(\w+):", volume))}
    assert mounted | {"grafana", "devices", "reader"} == made  # the last two are the operator's


@pytest.mark.parametrize("page", [COMPOSE, SYSTEMD], ids=["compose", "systemd"])
def test_files_that_are_linked_exist(page: str) -> None:
    """Of this repository."""
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page):
        assert (HOW_TO / link).exists(), link


def test_the_figures_of_systemd_are_those_that_are_held() -> None:
    """The page's exposure, and the test's."""
    from tests.unit.deploy.test_systemd import EXPOSURE

    said = re.search(r"rates them ([\d.]+), ([\d.]+) and ([\d.]+) of 10", SYSTEMD)
    assert said is not None
    assert [round(float(each) * 10) + 1 for each in said.groups()] == list(EXPOSURE.values())
