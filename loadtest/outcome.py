"""What a judged run comes to: passed, failed or invalid, and everything that a report says about it.

Decides how misses and doubts together become one status, and its number for the shell. Who judges is `verdict`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from loadtest.figures import Figures
from loadtest.journal import RunError
from loadtest.reconcile import Reconciliation
from loadtest.thresholds import CORRECTNESS, Finding

Status = Literal["passed", "failed", "invalid"]
EXIT: dict[Status, int] = {"passed": 0, "failed": 1, "invalid": 3}


class Run(msgspec.Struct, frozen=True):
    """`run.json`: what was run, for how many `minutes` by how many `processes`. `gate` is the configuration by which
    ClickHouse and control are reached; `facts` is everything that the file says, for a reader of the report."""

    shape: str
    started_ms: int
    ended_ms: int
    gate: str
    minutes: float = 0.0
    processes: int = 1
    facts: dict[str, Any] = {}

    @classmethod
    def load(cls, run_directory: Path) -> Run:
        """Raises RunError."""
        path = run_directory / "run.json"
        try:
            raw = path.read_bytes()
            run = msgspec.structs.replace(msgspec.json.decode(raw, type=cls), facts=msgspec.json.decode(raw))
        except (OSError, msgspec.MsgspecError) as error:
            raise RunError(f"{path}: {error}; name the directory of a run that has ended") from None
        if run.ended_ms <= run.started_ms:
            raise RunError(f"{path}: ended_ms is not after started_ms; the run did not begin")
        return run

    @property
    def seconds(self) -> float:
        return (self.ended_ms - self.started_ms) / 1000


class Verdict(NamedTuple):
    """`invalid` are the reasons why the run does not measure the gate; `notes` what a reader should know besides."""

    run: Run
    findings: list[Finding]
    invalid: list[str]
    notes: list[str]
    beside: Figures
    reconciled: Reconciliation | None
    pressure_limit: float

    @property
    def status(self) -> Status:
        missed = [finding for finding in self.findings if not finding.met]
        if self.invalid:
            missed = [finding for finding in missed if finding.name in CORRECTNESS]
        return "failed" if missed else "invalid" if self.invalid else "passed"

    @property
    def exit_status(self) -> int:
        return EXIT[self.status]
