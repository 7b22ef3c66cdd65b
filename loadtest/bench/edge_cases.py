"""Cases chatty, batched, batched_paths and http: what the edge alone costs for each acknowledged event.

An edge with an empty spool and a swarm of real devices; no load beside it. CPU is the edge's from the moment the swarm
begins to measure until it ends, divided by the events it acknowledged in that time. A refused message is a failure.
"""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from loadtest.bench.context import Context, Figures
from loadtest.bench.gate import Gate
from loadtest.bench.processes import BenchError, Process, Swarm

SIGNALS = 8


class Case(NamedTuple):
    """`prepare` messages a second and connection are signed before the clock starts: more than the gate can take."""

    connections: int
    events: int
    prepare: int
    options: tuple[str, ...] = ()


CHATTY = Case(1_000, 1, 60)
BATCHED = Case(100, 60, 150)
BATCHED_PATHS = Case(100, 60, 100, ("--by-path",))
HTTP = Case(8, 1, 12_000, ("--batch", "100"))


def run(context: Context, case: Case) -> Figures:
    """The median of each figure over the rounds."""
    with context.gate(case.connections) as gate:
        edge = gate.start_edge()
        rounds = [_round(context, gate, edge, case, number) for number in range(context.sizes.rounds)]
        figures = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        return figures | {"rss_mb": edge.memory_mb()}


def _round(context: Context, gate: Gate, edge: Process, case: Case, number: int) -> Figures:
    seconds = context.sizes.seconds
    looks: dict[str, float] = {}
    options = (
        *gate.addresses,
        *("--connections", str(case.connections), "--events", str(case.events), "--signals", str(SIGNALS)),
        *("--seconds", str(seconds), "--warm-up", "1", "--prepare", str(int(case.prepare * (seconds + 1)))),
        *("--epoch", str(number + 1), *case.options),
    )
    swarm = Swarm(gate.devices, options, seconds, lambda phase: looks.update({phase: edge.cpu_s()}))
    seen = swarm.report()
    check(seen)
    return _figures(seen, looks["measured"] - looks["measuring"], case.events)


def check(seen: dict[str, Any]) -> None:
    """Raises BenchError unless every message of a swarm was accepted."""
    wrong = {label: count for label, count in seen["answers_in_all"].items() if label != "accepted"} | seen["ended"]
    if wrong or seen["unanswered"]:
        raise BenchError(f"not every message was accepted: {wrong}, {seen['unanswered']} unanswered")


def _figures(seen: dict[str, Any], edge_cpu_s: float, events_each: int) -> Figures:
    messages = seen["answers"]["accepted"]
    return {
        "edge_cpu_us_per_event": edge_cpu_s / (messages * events_each) * 1e6,
        "events_per_s": seen["events_per_s"],
        "events_per_s_per_core": messages * events_each / edge_cpu_s,
        "readings_per_s": seen["events_per_s"] * SIGNALS,
        "ack_ms_p50": seen["ack_ms"]["p50"],
        "ack_ms_p99": seen["ack_ms"]["p99"],
        "generator_cpu_us_per_message": seen["cpu_us_per_message"],
        "edge_cores": edge_cpu_s / seen["seconds"],
    }
