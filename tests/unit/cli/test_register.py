"""Every command is found in the register, and the one that is called imports no other's module."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.unit.cli.conftest import Shell

from fleetgate.cli.register import PLACES


@pytest.mark.parametrize("name", PLACES)
def test_a_command_of_the_register_tells_how_it_is_used(shell: Shell, name: str) -> None:
    assert shell.must(name, "--help").startswith(f"Usage: fleetgate {name} ")


def test_help_lists_all_commands(shell: Shell) -> None:
    lines = [line.split() for line in shell.must("--help").partition("Commands:")[2].splitlines()]
    assert [words[0] for words in lines if words] == list(PLACES)


def test_a_mistyped_command_is_told_the_one_that_is_meant(shell: Shell) -> None:
    assert shell.run("devices", "list") == 2
    assert "Did you mean 'device'?" in shell.err


def imported(statement: str, *arguments: str) -> set[str]:
    """The modules that a process has after it, however it ended."""
    tell = f"import sys\ntry: {statement}\nfinally: print(*sys.modules)"
    command = [sys.executable, "-c", tell, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_a_command_imports_no_other() -> None:
    commands = {f"fleetgate.cli.{place.partition(':')[0]}" for place in PLACES.values()}
    found = imported("from fleetgate.cli.main import main; main()", "edge", "--help")
    assert commands & found == {"fleetgate.cli.edge"}


def test_who_only_asks_clickhouse_imports_nothing_that_loads() -> None:
    found = imported("import fleetgate.load.ask")
    assert {"fleetgate.load.service", "fleetgate.load.loader", "chdb", "sqlalchemy", "pandas"} & found == set()
