"""Cases load and load_single: a full spool into the embedded ClickHouse, `raw_messages` and rollups on.

The segments are written by the edge's own writer from signed messages of many devices, before the clock starts; then
`fleetgate load` runs as in production. The clock runs from the cursor's first step to its last, so that the start of
the process is not in it. Memory is its highest, whatever the backlog.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from loadtest.bench.columns_case import stored_events
from loadtest.bench.context import Context, Figures
from loadtest.bench.gate import Gate
from loadtest.bench.processes import BenchError, until

from fleetgate.clock import SystemClock
from fleetgate.control.profile import identity_of
from fleetgate.spool.format import PeerRecord
from fleetgate.spool.home import Spool
from fleetgate.spool.writer import Sender
from fleetsim.bundle import read_bundle
from fleetsim.swarm_work import Shape, Work, bodies

DEVICES = 200
SIGNALS = 8
COMMIT_MESSAGES = 64  # about what one turn of the edge's loop brings
LOADED_SECONDS = 600.0
_ACCEPTED = 1


class Case(NamedTuple):
    events: int


LOAD = Case(60)
LOAD_SINGLE = Case(1)


def run(context: Context, case: Case) -> Figures:
    with context.gate(DEVICES) as gate:
        messages, first_messages = _fill(gate, case.events, context.sizes.segments)
        load = gate.start_load()
        until(lambda: gate.loaded_segment() >= 1, "the first segment is loaded", LOADED_SECONDS, load)
        start_s, start_cpu_s, skipped = time.monotonic(), load.cpu_s(), gate.loaded_segment()
        if skipped > 1:
            raise BenchError(f"{skipped} segments were loaded before the first look: make the spool larger")
        until(gate.all_loaded, "the spool is loaded", LOADED_SECONDS, load)
        took_s, cpu_s = time.monotonic() - start_s, load.cpu_s() - start_cpu_s
        stored = stored_events(gate)
        if stored != messages * case.events:
            raise BenchError(f"{messages * case.events} events were in the spool and {stored} are in ClickHouse")
        events = (messages - first_messages) * case.events
        return {
            "events_per_s": events / took_s,
            "readings_per_s": events * SIGNALS / took_s,
            "events_per_s_per_core": events / cpu_s,
            "load_cpu_us_per_event": cpu_s / events * 1e6,
            "rss_mb": load.memory_mb("VmHWM"),
        }


def _fill(gate: Gate, events: int, segments: int) -> tuple[int, int]:
    """(messages in the spool, those of its first segment)."""
    clock = SystemClock()
    spool = Spool(gate.spool, clock, os.urandom)
    shape = Shape(events, SIGNALS)
    made = bodies(shape, random.Random(1))  # noqa: S311  telemetry, not keys
    found = sorted(gate.devices.iterdir())[:DEVICES]
    works = [Work(read_bundle(path), shape.enc, made, 1, clock.now_ms) for path in found]
    senders = [_sender(path, gate) for path in found]
    messages = first = sealed = 0
    while sealed < segments:
        for work, sender in zip(works, senders, strict=True):
            for raw in work.sign(COMMIT_MESSAGES // 4):
                spool.writer.message(sender, clock.now_ms(), _ACCEPTED, 0, raw)
                messages += 1
            spool.writer.commit()
        if spool.writer.live_bytes >= gate.config.spool.segment_bytes:
            spool.writer.seal()
            sealed += 1
            first = first or messages
    spool.close()
    return messages, first


def _sender(bundle: Path, gate: Gate) -> Sender:
    """The device as the edge names it in the spool."""
    leaf = x509.load_pem_x509_certificate((bundle / "certificate.pem").read_bytes())
    who = identity_of(leaf, gate.config.trust_domain)
    vehicle = who.device_id.removesuffix("-tcu")
    digests = (who.fingerprint, who.key_digest)
    return Sender(PeerRecord(-1, who.tenant, vehicle, who.device_id, *digests, "[::1]:1", "mqtt", "edge-1", "1"))
