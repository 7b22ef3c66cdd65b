"""`make outage`: ClickHouse is killed under load, comes back after ten minutes, and the backlog drains.

Decides when the outage begins and ends, and what counts: nothing refused, every acknowledged message stored, and,
while ingest goes on, the backlog loaded at ten times the rate of ingest or more. ClickHouse is a server of
its own (standin.py), so that edge and load live through it. Exits 1 when one of these does not hold.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from loadtest.bench.context import QUICK, Context
from loadtest.bench.edge_cases import check
from loadtest.bench.gate import Gate
from loadtest.bench.processes import BenchError, Process, Swarm, until
from loadtest.bench.stored import check_clickhouse
from loadtest.bench.sustained_case import WARM_UP_SECONDS, prepared

from fleetgate.clock import SystemClock
from fleetgate.errors import ClickHouseAway
from fleetgate.load.lag import lag_of

BEFORE_SECONDS = 5.0
LEAST_DRAIN_SECONDS = 20.0  # of ingest behind the outage, beside what the drain should take
LOADED_SECONDS = 600.0
CAUGHT_UP_SEGMENTS = 2  # what is on its way at any time: one in hand, one just sealed
LEAST_TIMES = 10.0
MOST_PREPARED = 3_000_000  # messages; of a longer run the swarm signs as it goes


class Drain(NamedTuple):
    """`times` is the rate at which events were loaded during the drain, by that of ingest."""

    backlog_segments: int
    backlog_mb: float
    first_s: float
    drained_s: float
    loaded_per_s: float
    times: float
    ack_ms_p99: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="make outage", description="An outage of ClickHouse and its drain.")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the outage")
    parser.add_argument("--rate", type=float, default=5_000.0, help="messages of one event a second in all")
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fleetgate-outage-") as directory:
        try:
            drain = _run(Path(directory), arguments.minutes * 60, arguments.rate, arguments.connections)
        except BenchError as error:
            print(error)
            return 1
    for name, value in drain._asdict().items():
        print(f"{name:18} {value:12,.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(drain._asdict(), indent=2) + "\n")
    if drain.times < LEAST_TIMES:
        print(f"the backlog drained at {drain.times:.1f} times the rate of ingest, less than {LEAST_TIMES:.0f}")
    return int(drain.times < LEAST_TIMES)


def _run(directory: Path, outage_s: float, rate: float, connections: int) -> Drain:
    context = Context(directory, QUICK)
    seconds = BEFORE_SECONDS + outage_s + max(LEAST_DRAIN_SECONDS, outage_s / LEAST_TIMES * 1.5)
    with context.gate(connections, server=True) as gate:
        token = gate.config.path(gate.config.clickhouse.token_file)
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        server = _start_server(gate)
        load = gate.start_load()
        gate.start_edge()
        each = prepared(rate, WARM_UP_SECONDS + seconds, connections)
        options = (
            *(*gate.addresses, "--connections", str(connections), "--rate", str(rate)),
            *("--seconds", str(seconds), "--warm-up", str(WARM_UP_SECONDS)),
            *("--prepare", str(each if each * connections <= MOST_PREPARED else 0)),
        )
        measuring = Measuring()
        with Swarm(gate.devices, options, seconds, measuring.on_phase) as swarm:
            until(lambda: measuring.begun, "the swarm sends", LOADED_SECONDS)
            time.sleep(BEFORE_SECONDS)
            server.kill()
            time.sleep(outage_s)
            backlog = lag_of(gate.spool, SystemClock().now_ms())
            server = _start_server(gate)
            start_s, from_segment = time.monotonic(), gate.loaded_segment()
            until(lambda: gate.loaded_segment() > from_segment, "load goes on", LOADED_SECONDS, load)
            first_s = time.monotonic() - start_s
            first_ms = SystemClock().now_ms()
            until(lambda: _caught_up(gate), "the backlog is loaded", LOADED_SECONDS, load)
            drained_s = time.monotonic() - start_s - first_s
            drained_ms = SystemClock().now_ms()
            if measuring.ended:
                raise BenchError(
                    f"the swarm had ended before the backlog was loaded, {first_s + drained_s:.0f} s later"
                )
            loaded = _loaded_between(gate, first_ms, drained_ms)
            seen = swarm.report()
            check(seen)
        until(gate.all_loaded, "everything is in ClickHouse", LOADED_SECONDS, load)
        acked = seen["answers_in_all"]["accepted"]
        check_clickhouse(gate.clickhouse(), acked, acked)
        server.kill()
        return Drain(
            backlog.segments,
            backlog.size / 2**20,
            first_s,
            drained_s,
            loaded / drained_s,
            loaded / drained_s / rate,
            seen["ack_ms"]["p99"],
        )


class Measuring:
    """Where the swarm is."""

    def __init__(self) -> None:
        self.begun = self.ended = False

    def on_phase(self, phase: str) -> None:
        self.begun = self.begun or phase == "measuring"
        self.ended = self.ended or phase == "measured"


def _start_server(gate: Gate) -> Process:
    settings = gate.config.clickhouse
    arguments = (str(gate.directory / "clickhouse"), settings.listen, settings.database)
    token = str(gate.config.path(settings.token_file))
    server = Process(
        [sys.executable, "-m", "loadtest.bench.standin", *arguments, token], gate.directory / "clickhouse.log"
    )
    gate.ends(server)
    until(lambda: _answers(gate), "ClickHouse answers", LOADED_SECONDS, server)
    return server


def _answers(gate: Gate) -> bool:
    client = gate.clickhouse()
    try:
        client.rows("SELECT 1")
    except ClickHouseAway:
        return False
    finally:
        client.close()
    return True


def _caught_up(gate: Gate) -> bool:
    return lag_of(gate.spool, SystemClock().now_ms()).segments <= CAUGHT_UP_SEGMENTS


def _loaded_between(gate: Gate, from_ms: int, to_ms: int) -> int:
    """Events of the segments that were loaded in that time."""
    client = gate.clickhouse()
    try:
        [[events]] = client.rows(
            "SELECT sum(events) FROM segments WHERE toUnixTimestamp64Milli(loaded_at) BETWEEN {f:Int64} AND {t:Int64}",
            {"f": from_ms, "t": to_ms},
        )
    finally:
        client.close()
    return int(events)


if __name__ == "__main__":
    sys.exit(main())
