"""A process of the gate or beside it, which a fault may stop, kill and start again with the same arguments."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from fleetgate.control.localsocket import short_name
from fleetgate.demo.figures import is_ready
from tests.gate import clean_environment, until

START_SECONDS = 60.0
END_SECONDS = 30.0
REACHED_SECONDS = 40.0  # until a process under load gets to a fault point
ROOT = Path(__file__).parents[2]


class Running(Protocol):
    """What a fault may do to the edge, to load and to ClickHouse alike."""

    @property
    def process(self) -> subprocess.Popen[bytes]: ...

    def launch(self, **environment: str) -> None: ...

    def await_ready(self) -> None: ...

    def kill(self) -> None: ...

    def terminate(self) -> int: ...


class Process:
    """`python -m module arguments`, run in `directory`; `ready` says when it serves."""

    def __init__(self, arguments: Sequence[str], directory: Path, log_file: Path, ready: Callable[[], bool]) -> None:
        self.log_file = log_file
        self._arguments = [sys.executable, "-m", *arguments]
        self._directory = directory
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never launched"
        return self._process

    def launch(self, **environment: str) -> None:
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                cwd=self._directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment() | {"PYTHONFAULTHANDLER": "1"} | environment,
            )

    def await_ready(self) -> None:
        def ready() -> bool:
            status = self.process.poll()
            assert status is None, f"{self._arguments[1:4]} ended with {status}: {self.last_words()}"
            return self._ready()

        until(ready, f"{self._arguments[1:4]} is ready", START_SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(END_SECONDS)

    def terminate(self) -> int:
        """Its status. One that does not end says where it stands: SIGABRT has each of its threads told."""
        self.process.terminate()
        try:
            return self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(END_SECONDS)
            words = self.log_file.read_text(errors="replace").splitlines()[-200:]
            raise AssertionError("\n".join([f"{self._arguments[1:4]} did not end on SIGTERM", *words])) from None

    def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self.kill()

    def log_since(self, size: int) -> str:
        """What it wrote behind the first `size` bytes of its log."""
        return self.log_file.read_bytes()[size:].decode(errors="replace")

    def last_words(self) -> str:
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-20:])


def load_process(directory: Path, admin: str) -> Process:
    """`fleetgate load` of the gate in `directory`."""
    arguments = ["fleetgate.cli.main", "load"]
    return Process(arguments, directory, directory / "load.log", lambda: is_ready(admin))


def signer_process(directory: Path, path: Path) -> Process:
    """`fleetgate signer` of the gate in `directory`."""

    def answers() -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client, short_name(path) as name:
                client.connect(name)
        except OSError:
            return False
        return True

    return Process(["fleetgate.cli.main", "signer"], directory, directory / "signer.out", answers)


def restart(one: Running) -> None:
    """Starts it again after it ended, and waits until it serves."""
    one.launch()
    one.await_ready()


@contextmanager
def stopped(one: Running) -> Iterator[None]:
    """The process stands still, with all its sockets open."""
    os.kill(one.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(one.process.pid, signal.SIGCONT)


def ended_by_kill(one: Running, seconds: float) -> bool:
    """Waits for the process to kill itself; False when it is still alive after `seconds`."""
    deadline = time.monotonic() + seconds
    while one.process.poll() is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    assert one.process.returncode == -signal.SIGKILL, f"it ended with {one.process.returncode}, not by the fault"
    return True
