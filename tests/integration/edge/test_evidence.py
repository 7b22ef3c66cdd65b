"""What an edge keeps of what it refuses: enough to understand it, and never at the cost of telemetry."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.gate import Car, Gate, NewGate, until
from tests.http_peer import HttpPeer
from tests.mqtt_peer import MqttPeer, told

from fleetgate.control.keyring import Keyring
from fleetgate.evidence.sample import Kept, Slot
from fleetgate.evidence.store import read_samples

OTHER_BODY = b"\x93\xa1b\xa1c\x91\x94\x00\xa9heartbeat\x80\x80"


def directory_of(gate: Gate) -> Path:
    return gate.home.config.path(gate.home.config.evidence.directory)


def samples(gate: Gate, car: Car, count: int) -> list[Kept]:
    """Those of the car, once there are so many."""

    def enough() -> list[Kept] | None:
        found = read_samples(directory_of(gate), car.tenant, car.device_id)
        return found if len(found) >= count else None

    return until(enough, f"there are {count} samples") or []


def test_a_refused_message_is_kept_with_what_explains_it(
    shared_gate: Gate, session: MqttPeer, car: Car, other_car: Car
) -> None:
    """Its bytes, its digest, who sent it from where, whose key made it, and its place in the windows."""
    epoch = session.epoch
    assert told(session.ask(car.sign(epoch, 0)))[0] == 0
    sent = [
        car.sign(epoch, 0, body=OTHER_BODY),  # another message under a used number
        car.sign(epoch, 1, key=bytes(32)),
        b"garbage",
    ]
    for raw in sent:
        session.ask(raw)
    session.ask(car.sign(epoch, 1), other_car.topic)
    again, forged, garbage, misdirected = samples(shared_gate, car, 4)
    assert [kept.facts.what for kept in (again, forged, garbage, misdirected)] == [
        *("equivocation", "bad_mac", "malformed_envelope", "identity_mismatch"),
    ]
    assert [kept.raw for kept in (again, forged, garbage)] == sent
    assert [kept.sha256 for kept in (again, forged, garbage)] == [hashlib.sha256(raw).digest() for raw in sent]
    assert [kept.facts.verified for kept in (again, forged, garbage, misdirected)] == [True, False, None, None]
    assert again.facts.slot == Slot(epoch, 0, "another message")
    assert forged.facts.slot == Slot(epoch, 0, "above the highest")
    assert (garbage.facts.slot, garbage.facts.epoch, garbage.facts.key_id) == (None, None, None)
    assert misdirected.facts.topic == other_car.topic
    same = again.facts
    assert (same.disorder, forged.facts.disorder) != ("", "")
    assert (same.fingerprint, same.key_id, same.epoch, same.seq) == (car.identity.fingerprint, car.kid, epoch, 0)
    assert (same.transport, same.address.rpartition(":")[0], same.edge_id) == ("mqtt", "127.0.0.1", "edge-1")


def test_over_https_too(shared_gate: Gate, client: HttpPeer, car: Car) -> None:
    """Of a batch, the items that are refused."""
    client.batch(car.sign(1, 0), car.sign(1, 1, key=bytes(32)))
    [forged] = samples(shared_gate, car, 1)
    assert (forged.facts.what, forged.facts.transport, forged.facts.topic) == ("bad_mac", "https", "")


def test_a_flood_costs_samples_and_no_counts(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """Four of thirty are kept; the spool has every one of them on record."""
    for seq in range(30):
        session.ask(car.sign(session.epoch, seq, key=bytes(32)))
    assert len(samples(shared_gate, car, 4)) == 4
    until(lambda: shared_gate.refused(car, "bad_mac") == 30, "the spool has all refusals")
    assert shared_gate.metric('fleetgate_evidence_samples_total{fate="passed_over"}') >= 26


def test_no_key_is_in_it(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """Neither that of the device, nor a root key, nor a private one."""
    session.ask(car.sign(session.epoch, 0, key=bytes(32)))
    samples(shared_gate, car, 1)
    kept = b"".join(path.read_bytes() for path in directory_of(shared_gate).iterdir())
    roots = [root for root in Keyring.load(shared_gate.home.config.path("keyring.json")).roots.values() if root]
    assert [secret for secret in (*roots, car.key, b"PRIVATE KEY") if secret in kept] == []


def test_an_evidence_disk_that_fails_stops_nothing(new_gate: NewGate, tmp_path: Path) -> None:
    """Its directory cannot be made: messages are taken and refused as ever, and the metrics say what is wrong."""
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "in-the-way").write_text("no directory")
    gate = new_gate(evidence={"directory": "in-the-way"})
    car = gate.home.enrol("car-1")
    with MqttPeer(gate, car) as peer:
        peer.hello()
        assert told(peer.ask(car.sign(1, 0, key=bytes(32)))) == (0x87, "bad_mac")
        assert told(peer.ask(car.sign(1, 1))) == (0, None)
        until(lambda: gate.metric("fleetgate_evidence_failing") == 1, "it says that it fails")
        assert told(peer.ask(car.sign(1, 2))) == (0, None)
    assert gate.metric('fleetgate_evidence_samples_total{fate="lost"}') == 1
    assert gate.metric('fleetgate_rejections_total{reason="bad_mac",step="3",transport="mqtt"}') == 1
    assert "evidence_is_not_kept" in gate.log()
