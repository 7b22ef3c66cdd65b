"""Looks once a second at the gate and at the generator while a load test runs, and writes a line of JSON for each look.

Decides what is looked at: the figures of /metrics that say how the gate is doing, and what each process costs. What the
numbers mean is `samples`'. Reads /metrics and /proc from outside, so that neither side pays for being watched.

Of a process two times count: on a CPU, and waiting for one while it could have run (`/proc/PID/schedstat`). A generator
on a busy machine shows 40 % of a core and is late all the same; the second time says why.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fleetgate.demo.figures import scrape

FILE = "gate.jsonl"
INTERVAL_SECONDS = 1.0

ACKS, CONNECTIONS = "fleetgate_acks_total", "fleetgate_connections"
METRICS = frozenset(
    {
        ACKS,
        "fleetgate_events_total",
        "fleetgate_rejections_total",
        "fleetgate_limit_hits_total",
        "fleetgate_transitions_total",
        CONNECTIONS,
        "fleetgate_spool_bytes",
        "fleetgate_spool_oldest_seconds",
        "fleetgate_load_lag_segments",
        "fleetgate_load_lag_bytes",
        "fleetgate_load_lag_seconds",
        "fleetgate_load_clickhouse_away",
        "fleetgate_load_retries_total",
    }
)
"""Summed over their labels."""

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB_PAGES = os.sysconf("SC_PAGE_SIZE") / 2**20


class Sampler:
    """A context in which a thread writes `gate.jsonl`. Not for a process that has imported locust.

    `listeners` are admin addresses by process, as `{"edge": "127.0.0.1:9101", "load": "127.0.0.1:9102"}`. `processes`
    are process ids by name; the name `generator` stands for that process and all that it started, which are called
    `generator-PID`. Both may lack what is on another machine.
    """

    def __init__(self, run_directory: Path, listeners: Mapping[str, str], processes: Mapping[str, int]) -> None:
        self._file = (run_directory / FILE).open("w")
        self._listeners, self._processes = listeners, processes
        self._last: dict[str, Any] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        self._file.close()

    def _run(self) -> None:
        due_s = time.monotonic()
        while True:
            self._last = self._look()
            self._file.write(json.dumps(self._last) + "\n")
            self._file.flush()
            due_s = max(due_s + INTERVAL_SECONDS, time.monotonic())
            if self._over.wait(due_s - time.monotonic()):
                return

    def in_words(self) -> str:
        """The last look, for a person who waits."""
        edge = (self._last.get("metrics") or {}).get("edge")
        if edge is None:
            return "the gate does not tell its figures"
        return (
            f"{edge.get(CONNECTIONS, 0):,.0f} connections, {edge.get(ACKS, 0):,.0f} messages acknowledged by the gate"
        )

    def _look(self) -> dict[str, Any]:
        """Of the processes and the time together, then of the gate, which may not answer at once."""
        at_s, monotonic_s = time.time(), time.monotonic()
        return {
            "at_s": round(at_s, 3),
            "monotonic_s": round(monotonic_s, 3),
            "processes": {name: cost(pid) for name, pid in self._named()},
            "machine": machine(),
            "metrics": {name: _figures(listen) for name, listen in self._listeners.items()},
        }

    def _named(self) -> list[tuple[str, int]]:
        return [
            (name if each == pid else f"{name}-{each}", each)
            for name, pid in self._processes.items()
            for each in (family(pid) if name == "generator" else [pid])
        ]


def _figures(listen: str) -> dict[str, float] | None:
    """None while it does not answer."""
    samples = scrape(listen)
    if samples is None:
        return None
    sums: dict[str, float] = defaultdict(float)
    for (name, _labels), value in samples.items():
        if name in METRICS:
            sums[name] += value
    return dict(sums)


def cost(pid: int) -> dict[str, float] | None:
    """Seconds on a CPU (all threads), seconds that its first thread ran and waited for a CPU, MiB of memory; None when
    it is no more. The first thread is the one that all of locust runs in."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ran_ns, waited_ns, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    except (OSError, ValueError):
        return None
    if fields[0] == "Z":
        return None
    return {
        "cpu_s": (int(fields[11]) + int(fields[12])) / _TICKS,
        "ran_s": int(ran_ns) / 1e9,
        "waited_s": int(waited_ns) / 1e9,
        "rss_mb": round(int(fields[21]) * _MIB_PAGES, 1),
    }


def machine() -> dict[str, float]:
    """Seconds that all CPUs of the machine were there, and were not idle, since it started."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return {"there_s": sum(ticks) / _TICKS, "busy_s": (sum(ticks) - ticks[3] - ticks[4]) / _TICKS}


def family(pid: int) -> list[int]:
    """A process and all below it, itself first."""
    found = [pid]
    for each in found:
        try:
            tasks = list(Path(f"/proc/{each}/task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it ended meanwhile
    return found
