"""Case sustained: edge, load and ClickHouse together for a minute, at half of what chatty reached.

What was acknowledged must be stored, to the message, and at the rate that was offered: a gate that falls behind fails
the case. A message is queryable when the cursor has passed its segment: the cursor is looked at 50 times a second from
outside, and a message's wait counts from its receipt. Every message is signed before the clock starts: signing in
between stops the generator for up to 140 ms, which then looks like a stall of the edge.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
from loadtest.bench.context import Context, Figures
from loadtest.bench.edge_cases import CHATTY, SIGNALS, check, late
from loadtest.bench.gate import Gate
from loadtest.bench.processes import BenchError, Swarm, until
from loadtest.bench.stored import check_clickhouse

DEFAULT_RATE = 10_000.0  # when this run has no figures of chatty
SHARE = 0.5
KEPT_UP = 0.97  # of what was offered is answered within the measured time
LOOK_SECONDS = 0.02
LOADED_SECONDS = 120.0
WARM_UP_SECONDS = 2.0
SPARE = 1.05  # lanes do not take turns exactly


def run(context: Context) -> Figures:
    rate = rate_of("sustained", context)
    seconds = context.sizes.sustained_seconds
    with context.gate(CHATTY.connections) as gate:
        load, edge = gate.start_load(), gate.start_edge()
        options = (
            *(*gate.addresses, "--connections", str(CHATTY.connections), "--signals", str(SIGNALS)),
            *("--rate", f"{rate:.0f}", "--seconds", str(seconds), "--warm-up", str(WARM_UP_SECONDS)),
            *("--prepare", str(prepared(rate, WARM_UP_SECONDS + seconds, CHATTY.connections))),
        )
        looks: dict[str, tuple[float, float]] = {}
        with (
            _Watch(gate) as watch,
            Swarm(
                gate.devices, options, seconds, lambda phase: looks.update({phase: (edge.cpu_s(), load.cpu_s())})
            ) as swarm,
        ):
            seen = swarm.report()
            check(seen)
            check_kept_up(rate, seen["events_per_s"])
            until(gate.all_loaded, "everything is in ClickHouse", LOADED_SECONDS, load)
        rss_mb, load_rss_mb = edge.memory_mb(), load.memory_mb("VmHWM")
        acked = seen["answers_in_all"]["accepted"]
        check_clickhouse(gate.clickhouse(), acked, acked)
        waits_ms, weights = _waits(gate, watch.seen_ms)
        messages = seen["answers"]["accepted"]
        return late(seen) | {
            "offered_per_s": rate,
            "events_per_s": seen["events_per_s"],
            "ack_ms_p50": seen["ack_ms"]["p50"],
            "ack_ms_p99": seen["ack_ms"]["p99"],
            "queryable_ms_p50": _percentile(waits_ms, weights, 50),
            "queryable_ms_p99": _percentile(waits_ms, weights, 99),
            "edge_cpu_us_per_event": (looks["measured"][0] - looks["measuring"][0]) / messages * 1e6,
            "load_cpu_us_per_event": (looks["measured"][1] - looks["measuring"][1]) / messages * 1e6,
            "rss_mb": rss_mb,
            "load_rss_mb": load_rss_mb,
        }


def rate_of(case: str, context: Context) -> float:
    """What an edge takes with half of its time to spare."""
    chatty = context.figures.get("chatty")
    if chatty is not None:
        return SHARE * chatty["events_per_s"]
    context.notes.append(f"{case}: no figures of chatty in this run, so {DEFAULT_RATE:,.0f} messages/s were offered")
    return DEFAULT_RATE


def check_kept_up(offered_per_s: float, answered_per_s: float) -> None:
    """Raises BenchError when edge or generator fell behind."""
    if answered_per_s < KEPT_UP * offered_per_s:
        raise BenchError(
            f"{offered_per_s:,.0f} messages/s were offered and {answered_per_s:,.0f} answered: the machine is too "
            "busy or too slow for that rate"
        )


def prepared(rate: float, seconds: float, connections: int) -> int:
    """Messages that each connection needs, with some to spare."""
    return int(rate * seconds * SPARE / connections) + 10


class _Watch:
    """Notes when the cursor passed each segment, in Unix ms, until its block ends."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seen_ms: dict[int, float] = {}

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            self._look()

    def _look(self) -> None:
        now_ms = time.time() * 1000
        newest = self._gate.loaded_segment()
        for number in range(max(self.seen_ms, default=0) + 1, newest + 1):
            self.seen_ms[number] = now_ms


def _waits(gate: Gate, seen_ms: dict[int, float]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(ms from receipt to queryable, messages that waited so long), of every stored message."""
    client = gate.clickhouse()
    try:
        found = client.rows(
            "SELECT segment, toUnixTimestamp64Milli(received_at), count() FROM raw_messages GROUP BY 1, 2"
        )
    finally:
        client.close()
    rows = np.array([[int(value) for value in row] for row in found], np.int64).reshape(-1, 3)
    seen = np.array([seen_ms[segment] for segment in rows[:, 0].tolist()])
    return seen - rows[:, 1], rows[:, 2]


def _percentile(values: np.ndarray[Any, Any], weights: np.ndarray[Any, Any], percent: float) -> float:
    order = np.argsort(values)
    upto = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(upto, upto[-1] * percent / 100)])
