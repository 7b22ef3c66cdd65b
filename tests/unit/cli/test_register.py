"""Every command is found in the register, and the one that is called imports no other's module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_a_command_imports_no_other(tmp_path: Path) -> None:
    tell = "import sys; from fleetgate.cli.main import main\ntry: main()\nfinally: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", tell, "edge", "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    commands = {f"fleetgate.cli.{place.partition(':')[0]}" for place in PLACES.values()}
    assert commands & set(done.stdout.split()) == {"fleetgate.cli.edge"}
