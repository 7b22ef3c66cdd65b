"""Case registry: a million enrolled devices in control, a few thousand of them active.

The records are rows in bulk of the sizes of real ones; the active devices are really enrolled. Start is from the
command to ready, on an edge that has never run; memory is the edge's with all the active ones connected; connect
latency is TCP, TLS, CONNECT and the look-up in control, with eight on their way at once. CPU is that of the edge's
whole life until all are in: a new edge goes through the history of control in that time.
"""

from __future__ import annotations

import shutil

from loadtest.bench.context import Context, Figures
from loadtest.bench.installation import park
from loadtest.bench.processes import BenchError, Swarm

ON_THEIR_WAY = 8
CONNECT_SECONDS = 300.0


def run(context: Context) -> Figures:
    sizes = context.sizes
    installation = context.installation(sizes.registry_active)
    control = context.directory / "registry.db"
    shutil.copyfile(installation.control, control)
    park(control, sizes.registry_known - sizes.registry_active, 1)
    with context.gate(sizes.registry_active, control) as gate:
        edge = gate.start_edge()
        start_mb, start_cpu_s = edge.memory_mb(), edge.cpu_s()
        full: list[tuple[float, float]] = []
        options = (
            *(*gate.addresses, "--connections", str(sizes.registry_active), "--seconds", "0", "--hold", "1"),
            *("--handshakes", str(ON_THEIR_WAY), "--connect-seconds", str(CONNECT_SECONDS)),
        )
        with Swarm(
            gate.devices, options, CONNECT_SECONDS, lambda phase: full.append((edge.memory_mb(), edge.cpu_s()))
        ) as swarm:
            seen = swarm.report()
        if seen["ended"] or not full:
            raise BenchError(f"connections failed: {seen['ended']}")
        full_mb, full_cpu_s = full[0]
        return {
            "start_s": edge.ready_s,
            "start_cpu_s": start_cpu_s,
            "start_rss_mb": start_mb,
            "rss_mb": full_mb,
            "connect_ms_p50": seen["connect"]["ms"]["p50"],
            "connect_ms_p99": seen["connect"]["ms"]["p99"],
            "handshakes_per_s": seen["connect"]["handshakes_per_s"],
            "connected_cpu_s": full_cpu_s,
        }
