"""Cases load, load_single and load_mixed: a full spool into the embedded ClickHouse, `raw_messages` and rollups on.

The segments are written by the edge's own writer from signed messages of many devices, before the clock starts; then
`fleetgate load` runs as in production. The clock runs from the cursor's first step to its last, so that the start of
the process is not in it. Merges that are then still outstanding are waited for: their CPU is in the figures of CPU and
of cores, their time is not in `events_per_s` and `readings_per_s`, which say how fast a backlog is queryable. Memory
is its highest, whatever the backlog.

load and load_single send messages that look alike, as one software does that reports the same signals each time. In
load_mixed no two of a segment look alike: other signals, widths and labels in each.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from loadtest.bench.context import Context, Figures
from loadtest.bench.gate import Gate
from loadtest.bench.processes import BenchError, Process, until
from loadtest.bench.stored import check_clickhouse

from fleetgate.clock import SystemClock
from fleetgate.control.profile import identity_of
from fleetgate.spool.format import PeerRecord
from fleetgate.spool.home import Spool
from fleetgate.spool.reader import read_segment, segment_paths
from fleetgate.spool.writer import Sender
from fleetsim import encode
from fleetsim.bundle import read_bundle
from fleetsim.encode import Body, Event, Name
from fleetsim.signals import CATALOGUE
from fleetsim.swarm_work import Shape, Work, bodies, repeated

DEVICES = 200
SIGNALS = 8
MIXED_SIGNALS = (3, 20)
MIXED_BODIES = 500  # of each device: 200 devices fill more than a segment before the first comes again
COMMIT_MESSAGES = 64  # about what one turn of the edge's loop brings
LOADED_SECONDS = 600.0
MERGED_SECONDS = 300.0
QUIET_SECONDS = 2.0  # without a merge: load begins no other by itself when nothing is inserted
_ACCEPTED = 1


class Case(NamedTuple):
    events: int
    mixed: bool = False


LOAD = Case(60)
LOAD_SINGLE = Case(1)
LOAD_MIXED = Case(1, mixed=True)


def run(context: Context, case: Case) -> Figures:
    with context.gate(DEVICES) as gate:
        messages, first_messages = _fill(gate, case, context.sizes.segments)
        load = gate.start_load()
        until(lambda: gate.loaded_segment() >= 1, "the first segment is loaded", LOADED_SECONDS, load)
        start_s, start_cpu_s, skipped = time.monotonic(), load.cpu_s(), gate.loaded_segment()
        if skipped > 1:
            raise BenchError(f"{skipped} segments were loaded before the first look: make the spool larger")
        until(gate.all_loaded, "the spool is loaded", LOADED_SECONDS, load)
        took_s = time.monotonic() - start_s
        _wait_for_merges(gate, load)
        cpu_s, rss_mb = load.cpu_s() - start_cpu_s, load.memory_mb("VmHWM")
        stored = messages * case.events
        check_clickhouse(gate.clickhouse(), messages, stored)
        readings = _readings(gate)
        events = (messages - first_messages) * case.events
        return {
            "events_per_s": events / took_s,
            "readings_per_s": events * readings / stored / took_s,
            "events_per_s_per_core": events / cpu_s,
            "load_cpu_us_per_event": cpu_s / events * 1e6,
            "rss_mb": rss_mb,
        }


def _wait_for_merges(gate: Gate, load: Process) -> None:
    """Until there has been none for 2 s. The looks, four a second, cost load about 1 ms of CPU each."""
    client = gate.clickhouse()
    quiet_since_s = time.monotonic()

    def quiet() -> bool:
        nonlocal quiet_since_s
        [[merges]] = client.rows("SELECT count() FROM system.merges")
        if int(merges):
            quiet_since_s = time.monotonic()
        time.sleep(0.25)
        return time.monotonic() - quiet_since_s >= QUIET_SECONDS

    try:
        until(quiet, "ClickHouse has merged", MERGED_SECONDS, load)
    finally:
        client.close()


def _readings(gate: Gate) -> int:
    client = gate.clickhouse()
    try:
        [[readings]] = client.rows("SELECT sum(length(signal_ids)) FROM events")
    finally:
        client.close()
    return int(readings)


def _fill(gate: Gate, case: Case, segments: int) -> tuple[int, int]:
    """(messages in the spool, those of its first segment)."""
    clock = SystemClock()
    spool = Spool(gate.spool, clock, os.urandom, gate.config.spool.segment_bytes)
    rng = random.Random(1)  # noqa: S311  telemetry, not keys
    alike = bodies(Shape(case.events, SIGNALS), rng)
    found = sorted(gate.devices.iterdir())[:DEVICES]
    works = [
        Work(
            read_bundle(path),
            encode.ROWS_MSGPACK,
            repeated(_mixed(index, rng) if case.mixed else alike),
            1,
            clock.now_ms,
        )
        for index, path in enumerate(found)
    ]
    senders = [_sender(path, gate) for path in found]
    messages = 0
    while len(spool.writer.sealed_sizes) < segments:
        for work, sender in zip(works, senders, strict=True):
            for raw in work.sign(COMMIT_MESSAGES // 4):
                spool.writer.message(sender, clock.now_ms(), _ACCEPTED, 0, raw, case.events)
                messages += 1
            spool.writer.commit()
    spool.writer.seal()
    _, path = segment_paths(gate.spool / "segments")[0]
    first = len(read_segment(path).messages)
    spool.close()
    return messages, first


def _mixed(device: int, rng: random.Random) -> list[bytes]:
    """Bodies of one device, every second of which names signals by path. Each has signals of its own choice and an age
    of any width; one value of 8 is an integer, one message of 20 a fault with its text."""
    numeric = [signal for signal in CATALOGUE if signal.low is not None]
    [text] = [signal for signal in CATALOGUE if signal.low is None]
    by_path = device % 2 == 1
    software, config = f"2026.{40 + device % 7}.{device % 3}", f"cfg-{device % 5:04x}"
    made = []
    for _ in range(MIXED_BODIES):
        values: dict[Name, float] = {}
        for signal in rng.sample(numeric, rng.randint(*MIXED_SIGNALS)):
            value = rng.uniform(signal.low or 0.0, signal.high or 0.0)
            values[signal.path if by_path else signal.number] = round(value) if rng.random() < 1 / 8 else value
        at = -rng.randrange(1 << rng.randrange(20))  # ms: up to 8 minutes, most of them seconds
        kind, texts = "sample", dict[Name, str]()
        if rng.random() < 1 / 20:
            kind, texts = "fault", {text.path if by_path else text.number: f"P0{rng.randrange(1000):03d}"}
        made.append(encode.encode_body(encode.ROWS_MSGPACK, Body(software, config, [Event(at, kind, values, texts)])))
    return made


def _sender(bundle: Path, gate: Gate) -> Sender:
    """The device as the edge names it in the spool."""
    leaf = x509.load_pem_x509_certificate((bundle / "certificate.pem").read_bytes())
    who = identity_of(leaf, gate.config.trust_domain)
    vehicle = who.device_id.removesuffix("-tcu")
    digests = (who.fingerprint, who.key_digest)
    return Sender(PeerRecord(-1, who.tenant, vehicle, who.device_id, *digests, "[::1]:1", "mqtt", "edge-1", "1"))
