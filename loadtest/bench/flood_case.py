"""Case flood: a thousand devices send messages that they did not sign, while others go on as ever.

The honest ones send at a fixed rate, half of what chatty reached, twice on the same edge: once alone, before anybody of
the flood has connected, and once while each of its devices sends its next message as soon as the last was refused. They
have real certificates and another MAC key than the gate's. What the flood costs is what the second time has more of:
CPU for each accepted message, latency, bytes of the spool (nothing is loaded, so nothing goes from it), and what the
evidence takes. Both times are one round, with an edge of its own; the rounds are short and the median counts, so that
what else the machine does in one of them decides nothing. An honest message that was not accepted fails the case.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Set
from pathlib import Path
from typing import Any, NamedTuple

from loadtest.bench.context import Context, Figures, Rounds
from loadtest.bench.edge_cases import SIGNALS, check, late
from loadtest.bench.herd_case import choose
from loadtest.bench.processes import BenchError, Phases, Served, Swarm
from loadtest.bench.sustained_case import prepared, rate_of

from fleetgate.spool import format as fmt
from fleetgate.spool.reader import read_segment, segment_paths
from fleetgate.spool.writer import OFFSET_BYTES

HONEST = FLOODING = 1_000
CONNECT_SECONDS = 200.0
HANDSHAKES = 32  # at once: the time for one (`edge.handshake_seconds`) is not what is measured here
FLOOD_SECONDS = 3600.0  # until the case ends it
WARM_UP_SECONDS = 3.0  # the burst that each device of a flood is granted is over by then


class Spell(NamedTuple):
    """The honest devices' time, alone or not: what they saw, and what the gate paid meanwhile."""

    seen: dict[str, Any]
    cpu_s: float

    @property
    def cpu_us(self) -> float:
        """For each accepted message, whatever else the edge did."""
        accepted: int = self.seen["answers"]["accepted"]
        return self.cpu_s / accepted * 1e6


def run(context: Context) -> Rounds:
    rate = rate_of("flood", context)
    return [_round(context, rate) for _ in range(context.sizes.rounds)]


def _round(context: Context, rate: float) -> Figures:
    with context.gate(HONEST + FLOODING) as gate:
        everybody = sorted(gate.devices.iterdir())
        honest = choose(gate.directory / "honest", everybody[:HONEST])
        forgers = forge(gate.directory / "forgers", everybody[HONEST : HONEST + FLOODING])
        served = gate.serve()
        alone = _spell(context, served, honest, rate)
        phases = Phases()
        options = (*served.options, "--connections", str(FLOODING), "--seconds", str(FLOOD_SECONDS))
        with Swarm(forgers, options, FLOOD_SECONDS, phases.tell) as flood:
            phases.wait_for("measuring", CONNECT_SECONDS)
            flooded = _spell(context, served, honest, rate)
            flood.finish_early()
            sent = flood.report()
        served.check(sum(spell.seen["answers_in_all"]["accepted"] for spell in (alone, flooded)))
        evidence = gate.config.path(gate.config.evidence.directory)
        kept_mb = sum(path.stat().st_size for path in evidence.iterdir()) / 2**20
        spool_kb = spool_bytes(gate.spool, {bundle.name for bundle in forgers.iterdir()}) / 1024
    return _figures(rate, alone, flooded, sent) | {
        "spool_kb_per_s": spool_kb / sent["seconds"],
        "spool_bytes_per_refusal": spool_kb * 1024 / sent["answers_in_all"]["bad_mac"],
        "evidence_mb": kept_mb,
    }


def _spell(context: Context, served: Served, devices: Path, rate: float) -> Spell:
    seconds = context.sizes.seconds
    cpu_s: dict[str, float] = {}
    options = (
        *(*served.options, "--connections", str(HONEST), "--signals", str(SIGNALS), "--rate", f"{rate:.0f}"),
        *("--seconds", str(seconds), "--warm-up", str(WARM_UP_SECONDS)),
        *("--prepare", str(prepared(rate, WARM_UP_SECONDS + seconds, HONEST))),
        *("--handshakes", str(HANDSHAKES)),
    )
    with Swarm(devices, options, seconds, lambda phase: cpu_s.update({phase: served.process.cpu_s()})) as swarm:
        seen = swarm.report()
    check(seen)
    return Spell(seen, cpu_s["measured"] - cpu_s["measuring"])


def _figures(rate: float, alone: Spell, flooded: Spell, sent: dict[str, Any]) -> Figures:
    refused = sent["answers"].get("bad_mac", 0)
    if not refused or sent["answers"].get("accepted"):
        raise BenchError(f"of the flood's messages all must be refused, and some must be: {sent['answers']}")
    before, after = alone.seen, flooded.seen
    return late(after) | {
        "offered_per_s": rate,
        "accepted_ratio": after["events_per_s"] / before["events_per_s"],
        "edge_cpu_us_per_accepted_alone": alone.cpu_us,
        "edge_cpu_us_per_accepted": flooded.cpu_us,
        "cpu_ratio": flooded.cpu_us / alone.cpu_us,
        "ack_ms_p99_alone": before["ack_ms"]["p99"],
        "ack_ms_p99": after["ack_ms"]["p99"],
        "refused_per_s": refused / sent["seconds"],
    }


def forge(directory: Path, bundles: list[Path]) -> Path:
    """A directory with bundles of these devices that sign with a key the gate does not have."""
    directory.mkdir()
    for bundle in bundles:
        forged = directory / bundle.name
        forged.mkdir()
        for file in bundle.iterdir():
            if file.name != "device.json":
                (forged / file.name).symlink_to(file)
        facts = json.loads((bundle / "device.json").read_text())
        facts["mac_key"] = base64.b64encode(bytes(32)).decode()
        (forged / "device.json").write_text(json.dumps(facts))
    return directory


def spool_bytes(spool: Path, devices: Set[str]) -> int:
    """What the refusals of these devices take in the sealed segments of a spool: their records, and those that name
    them, which stand in the footer again."""
    total = 0
    for _, path in segment_paths(spool / "segments"):
        segment = read_segment(path)
        named = {ref: peer for ref, peer in segment.peers.items() if peer.device_id in devices}
        for peer in named.values():
            total += 2 * len(fmt.pack_record(fmt.PEER, peer, 0))
        for _, rejection in segment.rejections:
            if rejection.peer in named:
                total += len(fmt.pack_record(fmt.REJECTION, rejection, 0)) + OFFSET_BYTES
    return total
