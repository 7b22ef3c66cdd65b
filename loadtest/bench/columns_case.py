"""Cases columns and columns_40: from the socket into ClickHouse, edge, load and generator together on this machine.

The clock runs from the first message until every acknowledged reading is in ClickHouse (the cursor stands behind the
last segment), so neither half can run away from the other. ClickHouse must then have what was acknowledged, message by
message.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from loadtest.bench.context import Context, Figures
from loadtest.bench.edge_cases import check, late
from loadtest.bench.processes import Process, Swarm, until
from loadtest.bench.stored import check_clickhouse

CONNECTIONS = 100
LOADED_SECONDS = 300.0


class Case(NamedTuple):
    rows: int
    signals: int
    prepare: int  # messages a second and connection, a third more than the edge took on the fastest machine seen


COLUMNS = Case(600, 8, 125)
COLUMNS_40 = Case(300, 40, 48)


class _Look(NamedTuple):
    at_s: float
    edge_cpu_s: float
    load_cpu_s: float


def run(context: Context, case: Case) -> Figures:
    seconds = context.sizes.columns_seconds
    with context.gate(CONNECTIONS) as gate:
        load = gate.start_load()
        edge = gate.start_edge()
        options = (
            *(*gate.addresses, "--connections", str(CONNECTIONS), "--seconds", str(seconds), "--warm-up", "0"),
            *("--columns", "--events", str(case.rows), "--signals", str(case.signals)),
            *("--prepare", str(1 + int(case.prepare * seconds))),
        )
        looks: dict[str, _Look] = {}
        with Swarm(gate.devices, options, seconds, lambda phase: looks.update({phase: _look(edge, load)})) as swarm:
            seen = swarm.report()
        check(seen)
        until(gate.all_loaded, "everything is in ClickHouse", LOADED_SECONDS, load)
        end, start = _look(edge, load), looks["measuring"]
        messages = seen["answers_in_all"]["accepted"]
        rows = messages * case.rows
        rss_mb = load.memory_mb("VmHWM")  # before it answers questions
        check_clickhouse(gate.clickhouse(), messages, rows)
        took_s = end.at_s - start.at_s
        return late(seen) | {
            "readings_per_s": rows * case.signals / took_s,
            "events_per_s": rows / took_s,
            "edge_cpu_us_per_event": (end.edge_cpu_s - start.edge_cpu_s) / rows * 1e6,
            "load_cpu_us_per_event": (end.load_cpu_s - start.load_cpu_s) / rows * 1e6,
            "readings_acked_per_s": seen["events_per_s"] * case.signals,
            "ack_ms_p50": seen["ack_ms"]["p50"],
            "ack_ms_p99": seen["ack_ms"]["p99"],
            "generator_cpu_us_per_message": seen["cpu_us_per_message"],
            "rss_mb": rss_mb,
        }


def _look(edge: Process, load: Process) -> _Look:
    return _Look(time.monotonic(), edge.cpu_s(), load.cpu_s())
