"""`make soak`: ten minutes and more of steady load, and the verdict whether memory, files or latency grow.

One event a message at a fixed rate far below the maximum, from many connections, with load and ClickHouse beside the
edge. Each interval takes one sample of everything. Decides what is sampled and what growth is still none; `growth`
judges. Fails on growth, on a refused message, or when less is stored than was acknowledged; the samples taken so far
are told and written whatever ends it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.bench.arguments import at_least_one, output_file, positive
from loadtest.bench.context import QUICK, Context
from loadtest.bench.edge_cases import check
from loadtest.bench.growth import Allowed, Growth, enough, judge
from loadtest.bench.processes import Process, Swarm, end_on_sigterm, until
from loadtest.bench.stored import check_clickhouse
from loadtest.bench.sustained_case import prepared
from rich.console import Console
from rich.table import Table

LOADED_SECONDS = 120.0
WARM_UP_SECONDS = 2.0
INTERRUPTED = 130
MOST_PREPARED = 3_000_000  # messages; a longer soak signs as it goes, in bursts of 100 ms that are in every sample
LIMITS = {
    "edge_rss_mb": Allowed(0.02, 2),
    "edge_files": Allowed(0, 4),  # a segment, the checkpoint and its log come and go
    "load_rss_mb": Allowed(0.10, 20),  # ClickHouse keeps caches and merges when it likes
    "load_files": Allowed(0.05, 8),
    "spool_mb": Allowed(0.10, 32),  # two segments
    "ack_ms_p99": Allowed(0.25, 10),
}


class Samples:
    """Samples by figure, and when each was taken. `file` has all of them at any time."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.at_s: list[float] = []
        self.series: dict[str, list[float]] = {name: [] for name in LIMITS}

    def add(self, at_s: float, sample: Mapping[str, float]) -> None:
        self.at_s.append(at_s)
        for name, value in sample.items():
            self.series[name].append(value)
        self.write({})

    def write(self, verdicts: Mapping[str, Growth]) -> None:
        if self._file is not None:
            grown = {name: verdict._asdict() for name, verdict in verdicts.items()}
            content = {"at_s": self.at_s, "samples": self.series, "growth": grown}
            self._file.write_text(json.dumps(content, indent=2) + "\n")


def main(words: Sequence[str]) -> int:
    """Exit status: 0 steady, 1 grown or failed, 2 an option that makes no sense, 130 interrupted."""
    arguments = _parse(words)
    console, samples, status = Console(), Samples(arguments.json), 0
    try:
        with tempfile.TemporaryDirectory(prefix="fleetgate-soak-") as directory:
            _soak(Path(directory), arguments, console, samples)
    except KeyboardInterrupt:
        console.print("interrupted: what was sampled until now counts", style="red")
        status = INTERRUPTED
    except Exception as error:  # whatever it is, the samples must come out
        console.print(str(error) or type(error).__name__, style="red", highlight=False, markup=False)
        status = 1
    verdict = _told(samples, console)
    return status or verdict


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make soak",
        allow_abbrev=False,
        description="Steady load on edge, load and ClickHouse; says whether memory, files or latency grow. Exit status "
        "0: nothing does; 1: something does, or it failed; 2: the command line; 130: interrupted. make itself turns "
        "each of them but 0 into 2.",
    )
    parser.add_argument("--minutes", type=positive, default=10.0, help="how long; default %(default)g")
    parser.add_argument("--rate", type=positive, default=2_000.0, help="messages a second in all; default %(default)g")
    parser.add_argument("--connections", type=at_least_one, default=500, help="default %(default)d")
    parser.add_argument("--every", type=positive, default=10.0, help="seconds between samples; default %(default)g")
    parser.add_argument(
        "--json", type=output_file, metavar="FILE", help="samples as they are taken, and the verdict in the end"
    )
    arguments = parser.parse_args(words)
    if not enough(int(arguments.minutes * 60 / arguments.every)):
        parser.error("that is too short to judge: at least 11 samples are needed, so more --minutes or less --every")
    return arguments


def _told(samples: Samples, console: Console) -> int:
    """The verdict, for a person and in the file; 1 when something grows or nothing can be said."""
    if not enough(len(samples.at_s)):
        console.print(f"{len(samples.at_s)} samples are too few to judge")
        return 1
    verdicts = judge(samples.at_s, samples.series, LIMITS)
    samples.write(verdicts)
    table = Table("figure", "median", "grown", "allowed", "verdict")
    for name, verdict in verdicts.items():
        numbers = (f"{number:.2f}" for number in (verdict.median, verdict.grown, verdict.allowed))
        table.add_row(name, *numbers, "[red]grows[/]" if verdict.too_much else "steady")
    console.print(table)
    return int(any(verdict.too_much for verdict in verdicts.values()))


def _soak(directory: Path, arguments: argparse.Namespace, console: Console, samples: Samples) -> None:
    """Raises BenchError."""
    context = Context(directory, QUICK)
    seconds = arguments.minutes * 60
    with context.gate(arguments.connections) as gate:
        load, edge = gate.start_load(), gate.start_edge()

        def on_phase(phase: str) -> None:
            if phase.startswith("interval "):
                interval = json.loads(phase.removeprefix("interval "))
                if interval["seconds"] < arguments.every / 2:
                    return  # what was left at the end
                values = _sample(edge, load, gate.spool, interval)
                samples.add(time.monotonic(), values)
                shown = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
                console.print(f"{samples.at_s[-1] - samples.at_s[0]:6.0f} s  {shown}", highlight=False, soft_wrap=True)

        each = prepared(arguments.rate, WARM_UP_SECONDS + seconds, arguments.connections)
        options = (
            *(*gate.addresses, "--connections", str(arguments.connections), "--rate", str(arguments.rate)),
            *("--seconds", str(seconds), "--warm-up", str(WARM_UP_SECONDS), "--interval", str(arguments.every)),
            *("--prepare", str(each if each * arguments.connections <= MOST_PREPARED else 0)),
        )
        with Swarm(gate.devices, options, seconds, on_phase) as swarm:
            seen = swarm.report()
        check(seen)
        until(gate.all_loaded, "everything is in ClickHouse", LOADED_SECONDS, load)
        acknowledged = seen["answers_in_all"]["accepted"]
        check_clickhouse(gate.clickhouse(), acknowledged, acknowledged)


def _sample(edge: Process, load: Process, spool: Path, interval: dict[str, Any]) -> dict[str, float]:
    return {
        "edge_rss_mb": edge.memory_mb(),
        "edge_files": float(edge.open_files()),
        "load_rss_mb": load.memory_mb(),
        "load_files": float(load.open_files()),
        "spool_mb": _spool_mb(spool),
        "ack_ms_p99": ack_ms_p99(interval),
    }


def ack_ms_p99(interval: dict[str, Any]) -> float:
    """Of an interval without any answer it is the whole interval: nobody waited less."""
    latency: dict[str, float] = interval["ack_ms"]
    return latency["p99"] if latency else interval["seconds"] * 1000


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
    end_on_sigterm()
    sys.exit(main(sys.argv[1:]))
