"""Runs the command as a person would, in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleetgate.cli.main import main


class Shell:
    """`run` gives the exit code; `out` and `err` are what the last command printed."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.out = self.err = ""

    def run(self, *arguments: str) -> int:
        self._monkeypatch.setattr("sys.argv", ["fleetgate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        self.out, self.err = self._capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code

    def must(self, *arguments: str) -> str:
        assert self.run(*arguments) == 0, self.err
        return self.out

    def unread(self, reader: str, *arguments: str, unbuffered: bool = False) -> subprocess.CompletedProcess[str]:
        """In a process of its own, whose standard output is a pipe that nobody reads ("closed") or a "full" disk."""
        read, write = os.pipe()
        os.close(read)
        with open("/dev/full" if reader == "full" else os.devnull, "w") as full:
            done = subprocess.run(
                [sys.executable, *(["-u"] if unbuffered else []), "-m", "fleetgate.cli.main", *arguments],
                cwd=self.directory,
                stdout=full if reader == "full" else write,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
            )
        os.close(write)
        return done

    def json(self, *arguments: str) -> Any:
        return json.loads(self.must(*arguments, "--json"))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    for name in ("FLEETGATE_CONFIG", "FLEETGATE_TEST_CLOCK"):
        monkeypatch.delenv(name, raising=False)
    return Shell(tmp_path, monkeypatch, capsys)


@pytest.fixture
def gate(shell: Shell) -> Shell:
    """A shell where `ca init` has run and one device, car-tcu of acme, is enrolled."""
    shell.must("ca", "init")
    shell.must("device", "enroll", "--tenant", "acme", "--vehicle", "car")
    return shell
