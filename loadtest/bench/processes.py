"""Starts real processes, reads what they cost from the operating system, and ends them.

Decides how a process is measured: CPU from /proc/<pid>/stat (all threads, user and system), memory from
/proc/<pid>/status; and that none outlives its case: each is ended where its block ends, and by the kernel should this
process be killed. What runs in them, and when to look, is the cases'.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

_TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 20.0
SWARM_GRACE_SECONDS = 60.0
LAST_LINES = 12


class BenchError(Exception):
    """A case that could not be measured; the text says why, and what to look at."""


_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def end_with_parent() -> None:
    """In a child before it begins: SIGTERM when its parent is no more, even one that was killed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def end_on_sigterm() -> None:
    """SIGTERM ends this program as ctrl-C does: what it started is ended, what it has found is told."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class Process:
    """A child process whose output goes to `log`; `ready_s` seconds after its start somebody found it ready."""

    def __init__(self, arguments: Sequence[str], log: Path, cwd: Path | None = None) -> None:
        self.log = log
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                list(arguments),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent,  # one call of the system, which takes no lock
            )
        self.started_s = time.monotonic()
        self.ready_s = 0.0

    @property
    def pid(self) -> int:
        return self._child.pid

    def check(self) -> None:
        """Raises BenchError with its last words if it has ended."""
        if self._child.poll() is not None:
            raise BenchError(f"a process ended with status {self._child.returncode}; {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log, to stand in an error."""
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join(["its last words:", *lines]) if lines else "it said nothing"

    def cpu_s(self) -> float:
        """Seconds of CPU so far, in steps of 10 ms."""
        self.check()
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory_mb(self, name: str = "VmRSS") -> float:
        """Resident memory in MiB: `VmRSS` now, `VmHWM` at its highest."""
        self.check()
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise BenchError(f"/proc/{self.pid}/status has no {name}")

    def open_files(self) -> int:
        self.check()
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit status, when it has ended by itself; None when it runs for longer than that."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """Ends it as an outage does."""
        self._child.kill()
        self._child.wait()

    def stop(self) -> None:
        """Asks it to end; kills it when it does not in time."""
        self._child.terminate()
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Served(NamedTuple):
    """What a swarm is sent against: the process that pays, the devices it knows, the swarm's options to reach it.

    `check` is told how many messages were acknowledged since the last time; it raises BenchError if they are not there.
    """

    process: Process
    devices: Path
    options: tuple[str, ...]
    check: Callable[[int], None]


def until(met: Callable[[], bool], what: str, seconds: float, process: Process | None = None) -> None:
    """Asks again every 10 ms. Raises BenchError, with the last words of `process`, when the deadline has passed or it
    has ended."""
    deadline = time.monotonic() + seconds
    while not met():
        if process is not None:
            process.check()
        if time.monotonic() > deadline:
            said = f"; of the process that is waited for {process.last_words()}" if process is not None else ""
            raise BenchError(f"{what}: not within {seconds:.0f} s{said}")
        time.sleep(0.01)


class Phases:
    """What a swarm has told so far, for somebody who waits for it. `also` is called with each phase."""

    def __init__(self, also: Callable[[str], None] = lambda phase: None) -> None:
        self._also = also
        self._told: list[str] = []
        self._changed = threading.Condition()

    def tell(self, phase: str) -> None:
        self._also(phase)
        with self._changed:
            self._told.append(phase)
            self._changed.notify_all()

    def wait_for(self, phase: str, seconds: float) -> None:
        """Raises BenchError, with the last that was told, when it does not come in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: phase in self._told, seconds):
                raise BenchError(f"the swarm was not {phase} within {seconds:.0f} s: " + "; ".join(self._told[-3:]))


class Swarm:
    """A `fleetsim swarm` process, which ends with its block. `on_phase` is called, on a thread of its own, with each
    phase that it tells (`prepared` with `--wait`, `connected`, `measuring`, `measured`, `interval {JSON}`)."""

    def __init__(self, devices: Path, options: Sequence[str], seconds: float, on_phase: Callable[[str], None]) -> None:
        self._on_phase = on_phase
        self._said: list[str] = []
        self._failure: BaseException | None = None
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in `__exit__`
        self._child = subprocess.Popen(
            [sys.executable, "-m", "fleetsim", "swarm", str(devices), *options],
            stdin=subprocess.PIPE,
            stdout=self._out,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,  # one call of the system, which takes no lock
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._deadline_s = time.monotonic() + seconds + SWARM_GRACE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._child.kill()  # after `report` there is nothing left to kill
        self._child.wait()
        self._listener.join(5)
        for stream in (self._child.stdin, self._child.stderr, self._out):
            if stream is not None:
                stream.close()

    def _listen(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self._said = [*self._said, line.strip()][-LAST_LINES:]
            if self._failure is None:
                try:
                    self._on_phase(line.strip())
                except BaseException as error:  # raised again in `report`, on the caller's thread
                    self._failure = error

    def go(self) -> None:
        """Lets one that was told to `--wait` connect."""
        assert self._child.stdin is not None
        self._child.stdin.close()

    def finish_early(self) -> None:
        """Ends the measured time now; the report still comes."""
        self._child.terminate()

    def report(self) -> dict[str, Any]:
        """Waits for the end; what it printed. Raises BenchError."""
        try:
            self._child.wait(max(1.0, self._deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise BenchError("the swarm did not end in time; it said last: " + "; ".join(self._said)) from None
        self._listener.join(5)
        if self._failure is not None:
            raise self._failure
        if self._child.returncode:
            raise BenchError("the swarm failed: " + "\n".join(self._said))
        self._out.seek(0)
        found: dict[str, Any] = json.load(self._out)
        return found
