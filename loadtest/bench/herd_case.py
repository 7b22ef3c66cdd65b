"""Case herd: everybody reconnects at once, while a few who are connected go on sending.

The herd comes in once, loses all its connections in the same moment, and comes in again: the second time counts. Not
more than 256 are on their way in at once. A hundred others send a message a second each the whole time; their
latency, from when each message was due, is what the connected ones feel. Memory is that of the edge with all in it
(windows apart: the herd sends nothing) above that of the edge at its start. A handshake that fails is counted, and the
target missed; a connection that the edge ends when it was up fails the case.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtest.bench.context import Context, Figures
from loadtest.bench.edge_cases import check, late
from loadtest.bench.processes import BenchError, Phases, Swarm
from loadtest.bench.sustained_case import prepared

FEELERS = 100
HERD_SECONDS = 200.0
PREPARE_SECONDS = 60.0


def run(context: Context) -> Figures:
    herd = context.sizes.herd
    with context.gate(herd + FEELERS) as gate, ExitStack() as ending:
        everybody = sorted(gate.devices.iterdir())
        herd_devices = choose(gate.directory / "herd", everybody[:herd])
        feelers_devices = choose(gate.directory / "feelers", everybody[herd : herd + FEELERS])
        served = gate.serve()
        edge = served.process
        empty_mb = edge.memory_mb()
        full_mb: list[float] = []
        options = ("--connections", str(herd), "--seconds", "0", "--reconnect", "--connect-seconds", str(HERD_SECONDS))
        phases = Phases(lambda phase: full_mb.append(edge.memory_mb()) if phase == "connected" else None)
        swarm = ending.enter_context(
            Swarm(herd_devices, (*served.options, *options, "--wait"), 2 * HERD_SECONDS, phases.tell)
        )
        phases.wait_for("prepared", PREPARE_SECONDS)
        feelings = Phases()
        load = (
            *("--connections", str(FEELERS), "--rate", str(FEELERS), "--seconds", str(2 * HERD_SECONDS)),
            *("--prepare", str(prepared(FEELERS, 2 * HERD_SECONDS, FEELERS))),
        )
        feeling = ending.enter_context(
            Swarm(feelers_devices, (*served.options, *load), 2 * HERD_SECONDS, feelings.tell)
        )
        feelings.wait_for("measuring", PREPARE_SECONDS)
        cpu_s = edge.cpu_s()
        swarm.go()
        phases.wait_for("connected", 2 * HERD_SECONDS)
        feeling.finish_early()
        cpu_s = edge.cpu_s() - cpu_s
        seen, felt = swarm.report(), feeling.report()
        check(felt)
        served.check(felt["answers_in_all"]["accepted"])
        return _figures(seen, felt, cpu_s, full_mb[0], empty_mb)


def _figures(seen: dict[str, Any], felt: dict[str, Any], cpu_s: float, full_mb: float, empty_mb: float) -> Figures:
    again = seen["reconnect"]
    dialled = seen["connections"] * 2
    return late(felt) | {
        "handshakes_per_s": again["handshakes_per_s"],
        "all_in_s": again["seconds"],
        "handshakes_failed": float(handshakes_failed(seen)),
        "edge_cpu_ms_per_handshake": cpu_s * 1000 / dialled,
        "kb_per_connection": (full_mb - empty_mb) * 1024 / (again["live"] + FEELERS),
        "connect_ms_p50": again["ms"]["p50"],
        "connect_ms_p99": again["ms"]["p99"],
        "ack_ms_p50": felt["ack_ms"]["p50"],
        "ack_ms_p99": felt["ack_ms"]["p99"],
        "rss_mb": full_mb,
    }


def handshakes_failed(seen: dict[str, Any]) -> int:
    """Of both times, from the report of a swarm. Raises BenchError when a connection ended that had come up."""
    failed: int = seen["connect"]["failed"] + seen["reconnect"]["failed"]
    if sum(seen["ended"].values()) > failed:
        raise BenchError(f"the edge ended connections of the herd: {seen['ended']}")
    return failed


def choose(directory: Path, bundles: list[Path]) -> Path:
    """A directory that holds these bundles and no others."""
    directory.mkdir()
    for bundle in bundles:
        (directory / bundle.name).symlink_to(bundle)
    return directory
