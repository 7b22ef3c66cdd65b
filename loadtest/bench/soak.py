"""`make soak`: ten minutes and more of steady load, and the verdict whether memory, files or latency grow.

One event a message at a fixed rate far below the maximum, from many connections, with load and ClickHouse beside the
edge. Each interval takes one sample of everything. Decides what is sampled and what growth is still none; `growth`
judges. Exits 1 on growth, on a refused message, or when less is stored than was acknowledged.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from loadtest.bench.columns_case import stored_events
from loadtest.bench.context import QUICK, Context
from loadtest.bench.edge_cases import check
from loadtest.bench.growth import Allowed, judge
from loadtest.bench.processes import BenchError, Process, Swarm, until
from loadtest.bench.sustained_case import prepared
from rich.console import Console
from rich.table import Table

LOADED_SECONDS = 120.0
WARM_UP_SECONDS = 2.0
MOST_PREPARED = 3_000_000  # messages; a longer soak signs as it goes, in bursts of 100 ms that are in every sample
LIMITS = {
    "edge_rss_mb": Allowed(0.02, 2),
    "edge_files": Allowed(0, 4),  # a segment, the checkpoint and its log come and go
    "load_rss_mb": Allowed(0.10, 20),  # ClickHouse keeps caches and merges when it likes
    "load_files": Allowed(0.05, 8),
    "spool_mb": Allowed(0.10, 32),  # two segments
    "ack_ms_p99": Allowed(0.25, 10),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description="Steady load; judges growth.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2_000.0, help="messages a second in all")
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between samples")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples and verdict here")
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="fleetgate-soak-") as directory:
        try:
            at_s, series = _soak(Path(directory), arguments, console)
            verdicts = judge(at_s, series, LIMITS)
        except (BenchError, ValueError) as error:
            console.print(f"[red]{error}[/]")
            return 1
    table = Table("figure", "median", "grown", "allowed", "verdict")
    for name, verdict in verdicts.items():
        numbers = (f"{number:.2f}" for number in (verdict.median, verdict.grown, verdict.allowed))
        table.add_row(name, *numbers, "[red]grows[/]" if verdict.too_much else "steady")
    console.print(table)
    if arguments.json:
        grown = {name: verdict._asdict() for name, verdict in verdicts.items()}
        arguments.json.write_text(json.dumps({"at_s": at_s, "samples": series, "growth": grown}, indent=2) + "\n")
    return int(any(verdict.too_much for verdict in verdicts.values()))


def _soak(
    directory: Path, arguments: argparse.Namespace, console: Console
) -> tuple[list[float], dict[str, list[float]]]:
    """(seconds of each sample, samples by figure)."""
    context = Context(directory, QUICK)
    seconds = arguments.minutes * 60
    at_s: list[float] = []
    series: dict[str, list[float]] = {name: [] for name in LIMITS}
    with context.gate(arguments.connections) as gate:
        load, edge = gate.start_load(), gate.start_edge()

        def on_phase(phase: str) -> None:
            if phase.startswith("interval "):
                sample = _sample(edge, load, gate.spool, json.loads(phase.removeprefix("interval ")))
                at_s.append(time.monotonic())
                for name, value in sample.items():
                    series[name].append(value)
                shown = ", ".join(f"{name} {value:.1f}" for name, value in sample.items())
                console.print(f"{at_s[-1] - at_s[0]:6.0f} s  {shown}", highlight=False, soft_wrap=True)

        each = prepared(arguments.rate, WARM_UP_SECONDS + seconds, arguments.connections)
        options = (
            *(*gate.addresses, "--connections", str(arguments.connections), "--rate", str(arguments.rate)),
            *("--seconds", str(seconds), "--warm-up", str(WARM_UP_SECONDS), "--interval", str(arguments.every)),
            *("--prepare", str(each if each * arguments.connections <= MOST_PREPARED else 0)),
        )
        seen = Swarm(gate.devices, options, seconds, on_phase).report()
        check(seen)
        until(gate.all_loaded, "everything is in ClickHouse", LOADED_SECONDS, load)
        acked, stored = seen["answers_in_all"]["accepted"], stored_events(gate)
        if stored != acked:
            raise BenchError(f"{acked} messages were acknowledged and {stored} are stored")
    return at_s, series


def _sample(edge: Process, load: Process, spool: Path, interval: dict[str, Any]) -> dict[str, float]:
    return {
        "edge_rss_mb": edge.memory_mb(),
        "edge_files": float(edge.open_files()),
        "load_rss_mb": load.memory_mb(),
        "load_files": float(load.open_files()),
        "spool_mb": _spool_mb(spool),
        "ack_ms_p99": interval["ack_ms"].get("p99", 0.0),
    }


def _spool_mb(spool: Path) -> float:
    """Bytes of the segments; one that the edge deletes meanwhile counts as none."""
    size = 0
    for path in (spool / "segments").iterdir():
        try:
            size += path.stat().st_size
        except FileNotFoundError:
            continue
    return size / 2**20


if __name__ == "__main__":
    sys.exit(main())
