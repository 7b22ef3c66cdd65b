"""Cases chatty, batched, batched_paths and http: what the edge alone costs for each acknowledged event.

An edge with an empty spool and a swarm of real devices; no load beside it. CPU is the edge's from the moment the swarm
begins to measure until it ends, divided by the events it acknowledged in that time. A refused message is a failure,
and so is one that was acknowledged and does not stand in the spool: that is counted after each round.
Chatty and batched stand beside the sketch (`sketch_case`): in each round the same swarm loads one and then the other,
the first of them by turns, so that whatever else the machine does hits both; `ratio_to_sketch` is that of a round.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from loadtest.bench import sketch_case
from loadtest.bench.context import Context, Figures, Rounds
from loadtest.bench.processes import BenchError, Served, Swarm

from fleetsim.swarm import DRAIN_S

SIGNALS = 8


class Case(NamedTuple):
    """`prepare` messages a second and connection are signed before the clock starts: a third more than gate and sketch
    took on the fastest machine seen. In `batched_paths` that makes nearly the 2 GiB that the swarm may prepare."""

    connections: int
    events: int
    prepare: int
    options: tuple[str, ...] = ()


CHATTY = Case(1_000, 1, 80)
BATCHED = Case(100, 60, 280)
BATCHED_PATHS = Case(100, 60, 115, ("--by-path",))
HTTP = Case(8, 1, 17_000, ("--batch", "100"))


def run(context: Context, case: Case) -> Rounds:
    """The edge alone."""
    with context.gate(case.connections) as gate:
        edge = gate.serve()
        return [_round(context, edge, case, number) for number in range(context.sizes.rounds)]


def run_sketch(context: Context, case: Case) -> Rounds:
    """The sketch alone. Raises Absent where there is none."""
    with sketch_case.Sketch(context.directory, case.connections, case.events) as sketch:
        served = sketch.serve()
        return [_round(context, served, case, number) for number in range(context.sizes.rounds)]


def run_both(context: Context, case: Case) -> tuple[Rounds, Rounds]:
    """(sketch, edge), round by round. Raises Absent without the sketch."""
    sketch_rounds, edge_rounds = Rounds(), Rounds()
    with (
        sketch_case.Sketch(context.directory, case.connections, case.events) as sketch,
        context.gate(case.connections) as gate,
    ):
        turns = [(sketch.serve(), sketch_rounds), (gate.serve(), edge_rounds)]
        for number in range(context.sizes.rounds):
            for served, rounds in turns:
                rounds.append(_round(context, served, case, number))
            turns.reverse()
    for ours, theirs in zip(edge_rounds, sketch_rounds, strict=True):
        ours["ratio_to_sketch"] = ours["edge_cpu_us_per_event"] / theirs["edge_cpu_us_per_event"]
    return sketch_rounds, edge_rounds


def _round(context: Context, served: Served, case: Case, number: int) -> Figures:
    seconds = context.sizes.seconds
    cpu_s: dict[str, float] = {}
    # The sketch is sent bodies that were made for it.
    shape = () if "--bodies" in served.options else ("--events", str(case.events), "--signals", str(SIGNALS))
    options = (
        *(*served.options, "--connections", str(case.connections), *shape),
        *("--seconds", str(seconds), "--warm-up", "1", "--prepare", str(int(case.prepare * (seconds + 1)))),
        *("--epoch", str(number + 1), *case.options),
    )
    with Swarm(served.devices, options, seconds, lambda phase: cpu_s.update({phase: served.process.cpu_s()})) as swarm:
        seen = swarm.report()
    check(seen)
    rss_mb = served.process.memory_mb()
    served.check(seen["answers_in_all"]["accepted"])
    figures = _figures(seen, cpu_s["measured"] - cpu_s["measuring"], case.events)
    return figures | {"rss_mb": rss_mb} | late(seen)


def late(seen: dict[str, Any]) -> Figures:
    """The figure `late_messages`, where more than were prepared went out: what signing them cost the generator is in
    every wall-clock figure."""
    return {"late_messages": float(seen["late_messages"])} if seen["late_messages"] else {}


def check(seen: dict[str, Any]) -> None:
    """Raises BenchError unless every message of a swarm was sent and accepted."""
    wrong = {label: count for label, count in seen["answers_in_all"].items() if label != "accepted"} | seen["ended"]
    if wrong:
        raise BenchError(f"not every message was accepted: {wrong}, {seen['unanswered']} unanswered")
    if seen["unanswered"]:
        raise BenchError(
            f"{seen['unanswered']} messages were due and had no answer {DRAIN_S:.0f} s after the clock stopped: "
            "the gate has stalled, or this machine is too busy"
        )


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
