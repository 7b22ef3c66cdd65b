"""Case herd: everybody reconnects at once, while a few who are connected go on sending.

The herd comes in once, loses all its connections in the same moment, and comes in again: the second time counts. Not
more than 256 are on their way in at once. A hundred others send a message a second each the whole time; their
latency, from when each message was due, is what the connected ones feel. Memory is that of the edge with all in it
(windows apart: the herd sends nothing) above that of the edge at its start.
"""

from __future__ import annotations

from pathlib import Path

from loadtest.bench.context import Context, Figures
from loadtest.bench.edge_cases import check
from loadtest.bench.processes import BenchError, Phases, Swarm

FEELERS = 100
HERD_SECONDS = 200.0
PREPARE_SECONDS = 60.0


def run(context: Context) -> Figures:
    herd = context.sizes.herd
    with context.gate(herd + FEELERS) as gate:
        everybody = sorted(gate.devices.iterdir())
        herd_devices = _choose(gate.directory / "herd", everybody[:herd])
        feelers_devices = _choose(gate.directory / "feelers", everybody[herd : herd + FEELERS])
        edge = gate.start_edge()
        empty_mb = edge.memory_mb()
        full_mb: list[float] = []
        options = ("--connections", str(herd), "--seconds", "0", "--reconnect", "--connect-seconds", str(HERD_SECONDS))
        phases = Phases(lambda phase: full_mb.append(edge.memory_mb()) if phase == "connected" else None)
        swarm = Swarm(herd_devices, (*gate.addresses, *options, "--wait"), 2 * HERD_SECONDS, phases.tell)
        phases.wait_for("prepared", PREPARE_SECONDS)
        feelings = Phases()
        load = ("--connections", str(FEELERS), "--rate", str(FEELERS), "--seconds", str(2 * HERD_SECONDS))
        feeling = Swarm(feelers_devices, (*gate.addresses, *load), 2 * HERD_SECONDS, feelings.tell)
        feelings.wait_for("measuring", PREPARE_SECONDS)
        cpu_s = edge.cpu_s()
        swarm.go()
        phases.wait_for("connected", 2 * HERD_SECONDS)
        feeling.finish_early()
        cpu_s = edge.cpu_s() - cpu_s
        seen, felt = swarm.report(), feeling.report()
        check(felt)
        again = seen["reconnect"]
        if seen["ended"] or not full_mb:
            raise BenchError(f"connections of the herd failed: {seen['ended']}")
        return {
            "handshakes_per_s": again["handshakes_per_s"],
            "all_in_s": again["seconds"],
            "handshakes_failed": float(again["failed"]),
            "edge_cpu_ms_per_handshake": cpu_s * 1000 / (2 * herd),
            "kb_per_connection": (full_mb[0] - empty_mb) * 1024 / (herd + FEELERS),
            "connect_ms_p50": again["ms"]["p50"],
            "connect_ms_p99": again["ms"]["p99"],
            "ack_ms_p50": felt["ack_ms"]["p50"],
            "ack_ms_p99": felt["ack_ms"]["p99"],
            "rss_mb": full_mb[0],
        }


def _choose(directory: Path, bundles: list[Path]) -> Path:
    """A directory that holds these bundles and no others."""
    directory.mkdir()
    for bundle in bundles:
        (directory / bundle.name).symlink_to(bundle)
    return directory
