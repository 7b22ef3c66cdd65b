"""What an operator sees, and what vehicles meet when nothing can be stored: backpressure, not loss."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import mqtt5
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gate import Car, Gate, NewGate, until
from tests.http_peer import HttpPeer
from tests.mqtt_peer import MqttPeer, told

from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.identity import read_identity

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([\w, -]+) \|", re.MULTILINE)


def test_metrics_are_those_of_the_page(shared_gate: Gate) -> None:
    """Every documented family with its type and labels, and none that is not documented."""
    documented = _ROW.findall(PAGE.read_text().partition("## Load")[0])
    found = []
    for family in text_string_to_metric_families(shared_gate.admin("/metrics")[1]):
        if family.name.endswith("_created"):  # when a histogram was made, which the library adds by itself
            continue
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found.append((name, family.type, ", ".join(labels) or "-"))
    assert sorted(found) == sorted(documented)


def test_no_metric_names_a_vehicle_or_device(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """Labels come from closed sets, also after a device was accepted and refused."""
    session.ask(car.sign(1, 0))
    session.ask(car.sign(1, 1, key=bytes(32)))
    text = shared_gate.admin("/metrics")[1]
    assert not any(name in text for name in (car.tenant, car.vehicle_id, car.device_id))


@pytest.mark.parametrize(("transport", "reason", "step"), [("mqtt", "bad_mac", 3), ("https", "malformed_body", 6)])
def test_refusals_are_counted_by_step_reason_and_transport(
    shared_gate: Gate, session: MqttPeer, client: HttpPeer, car: Car, transport: str, reason: str, step: int
) -> None:
    """One more of exactly that sample."""
    sample = f'fleetgate_rejections_total{{reason="{reason}",step="{step}",transport="{transport}"}}'
    before = shared_gate.metric(sample)
    if transport == "mqtt":
        session.ask(car.sign(1, 0, key=bytes(32)))
    else:
        client.ask(car.sign(1, 0, body=b"junk"))
    assert shared_gate.metric(sample) == before + 1


@pytest.mark.parametrize(("path", "status"), [("/livez", 200), ("/readyz", 200), ("/else", 404)])
def test_the_admin_listener_answers(shared_gate: Gate, path: str, status: int) -> None:
    """A ready gate, seen from outside."""
    assert shared_gate.admin(path)[0] == status


def test_no_secret_and_no_payload_is_in_the_log(shared_gate: Gate, session: MqttPeer, car: Car) -> None:
    """After all the refusals of these tests and a quarantine of this one: no keys, bodies or tags, in any spelling."""
    shared_gate.secrets += [raw[-16:] for raw in (car.sign(1, 0), car.sign(1, 1))]
    for seq in range(12):
        session.ask(car.sign(1, seq, key=bytes(32)))
    until(lambda: car.device_id in shared_gate.log(), "the log tells of the quarantine")
    assert shared_gate.leaks() == []


def test_below_the_least_free_disk_nobody_is_let_in(new_gate: NewGate) -> None:
    """Not ready; CONNACK 0x88 and 503 with Retry-After; the setting stands in the reason."""
    gate = new_gate(spool={"min_free_bytes": 2**60})
    car = gate.home.enrol("one")
    status, text = gate.admin("/readyz")
    assert (status, "spool.min_free_bytes" in text, gate.metric("fleetgate_ready")) == (503, True, 0)
    with MqttPeer(gate, car) as peer:
        assert peer.greet().reason_code == 0x88
    with HttpPeer(gate, car) as client:
        answer = client.post(car.sign(1, 0))
        assert (answer.status, int(answer.headers["retry-after"]) > 0) == (503, True)


def _load_everything(gate: Gate) -> None:
    """Moves the cursor behind every sealed segment, as load does when ClickHouse has confirmed them."""
    identity = read_identity(gate.spool)
    assert identity is not None
    until(lambda: all(one.footer is not None for one in gate.segments() if one.messages), "every segment is sealed")
    newest = max(segment.header.segment for segment in gate.segments() if segment.footer is not None)
    write_cursor(gate.spool, Cursor(identity.spool, newest, "00" * 32))


def test_a_full_spool_stops_reading_live_sessions_until_there_is_room(new_gate: NewGate) -> None:
    """Nothing is read, acknowledged or lost meanwhile; the session outlives it, although its keep-alive is shorter."""
    spool = {"max_bytes": 20_000, "segment_seconds": 0.2, "checkpoint_seconds": 0.2}
    gate = new_gate(spool=spool, limits={"device": {"messages": "1000000/s"}})
    car = gate.home.enrol("one")
    with MqttPeer(gate, car) as peer:
        peer.hello(keep_alive=1)
        peer.sock.settimeout(3)
        answers: list[tuple[int, str | None]] = []
        with suppress(TimeoutError):  # the last one waits
            while True:
                answers.append(told(peer.ask(car.sign(1, len(answers)))))
        assert gate.admin("/readyz")[0] == 503
        assert len(gate.stored(car)) == len(answers)
        assert set(answers) == {(0, None)}
        _load_everything(gate)
        peer.sock.settimeout(10)
        assert told(peer.packet(mqtt5.PubAckPacket)) == (0, None)
        assert gate.metric("fleetgate_ready") == 1


def test_a_spool_that_fills_warns_then_refuses_and_opens_when_it_is_loaded(new_gate: NewGate) -> None:
    """At three quarters it only warns; full, it is not ready, answers 503 and lets nobody in; loaded, it goes on."""
    limits = {"max_bytes": 60_000, "segment_seconds": 0.2, "checkpoint_seconds": 0.2, "min_free_bytes": 0}
    gate = new_gate(spool=limits, limits={"device": {"messages": "1000000/s"}})
    car = gate.home.enrol("one")
    with HttpPeer(gate, car) as client:
        seq = 0
        while gate.metric("fleetgate_spool_bytes") < 48_000:
            assert client.post(car.sign(1, seq)).status == 202
            seq += 1
        until(lambda: gate.metric("fleetgate_spool_full_ratio") >= 0.75, "the ratio is looked up")
        assert (gate.admin("/readyz")[0], "spool_fills" in gate.log()) == (200, True)
        while (answer := client.post(car.sign(1, seq))).status == 202:
            seq += 1
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert (gate.admin("/readyz")[0], gate.metric("fleetgate_spool_full_ratio")) == (503, 1)
        assert gate.metric("fleetgate_spool_full_seconds") == 0
        with MqttPeer(gate, car) as peer:
            assert peer.greet().reason_code == 0x88
        _load_everything(gate)
        until(lambda: gate.admin("/readyz")[0] == 200, "there is room again")
        assert client.post(car.sign(1, seq)).status == 202
        until(lambda: "spool_has_room_again" in gate.log(), "the warning ends")
    assert len(gate.stored(car)) >= 1
