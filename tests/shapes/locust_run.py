"""A load test as its users start it, `python -m loadtest.run --target ...`, against a gate that a test can break."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from loadtest.run import ROOT

from tests.gate import clean_environment, until
from tests.loadruns import Rig

_STARTS_SECONDS, _ENDS_SECONDS = 120.0, 300.0
USERS, MINUTES = 60, 0.2


class Ran(NamedTuple):
    """What it left: exit status, `verdict.json`, and what stood in the terminal."""

    status: int
    verdict: dict[str, Any]
    said: str

    @property
    def missed(self) -> set[str]:
        """The limits that were not kept."""
        return {name for name, limit in self.verdict["limits"].items() if not limit["met"]}


class LocustRun:
    """One that is under way."""

    def __init__(self, rig: Rig, shape: str, directory: Path, *words: str) -> None:
        self._directory = directory
        command = [
            *(sys.executable, "-m", "loadtest.run", "--target", str(rig.home.directory / "fleetgate.toml")),
            *("--shape", shape, "--users", str(USERS), "--minutes", str(MINUTES), "--runs", str(directory), *words),
        ]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def await_answers(self) -> None:
        """Until the first messages are answered: the time of the shape has begun."""
        until(self._answered, "messages are answered", _STARTS_SECONDS)

    def _answered(self) -> bool:
        assert self._process.poll() is None, self._process.communicate()[0]
        # A label stands there before the first record with it; records themselves wait in a buffer.
        return any('"label"' in about.read_text() for about in self._directory.glob("*/acks-*.jsonl"))

    @property
    def pid(self) -> int:
        return self._process.pid

    def finish(self) -> Ran:
        """Waits for the verdict."""
        status, said = self.wait()
        found = list(self._directory.glob("*/verdict.json"))
        assert found, said
        return Ran(status, json.loads(found[0].read_text()), said)

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> tuple[int, str]:
        """Exit status, and everything that stood in the terminal."""
        said, _ = self._process.communicate(timeout=_ENDS_SECONDS)
        return self._process.returncode, said

    def end(self) -> None:
        if self._process.poll() is None:
            self.terminate()
            self.wait()


@contextmanager
def load_test(rig: Rig, shape: str, directory: Path, *words: str) -> Iterator[LocustRun]:
    """None outlives its block."""
    run = LocustRun(rig, shape, directory, *words)
    try:
        yield run
    finally:
        run.end()
