"""Samples as an edge offers them."""

from __future__ import annotations

from tests.units import NOW

from fleetgate.evidence.sample import Facts, Sample, Slot

FACTS = Facts(
    what="bad_mac",
    disorder="",
    outcome="rejected",
    edge_id="edge-1",
    vehicle_id="car-7",
    address="[::1]:1",
    transport="mqtt",
    topic="fleet/v1/acme/car-7-tcu/telemetry",
    fingerprint=bytes(32),
    verified=False,
    key_id=1,
    epoch=3,
    seq=7,
    sent_at_ms=NOW,
    slot=Slot(3, 6, "above the highest"),
    state="trusted",
    policy_version="1",
)


def sample(device: str = "car-7-tcu", at_ms: int = NOW, raw: bytes = b"x" * 200) -> Sample:
    return Sample("acme", device, at_ms, FACTS, raw)
