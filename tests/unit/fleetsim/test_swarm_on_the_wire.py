"""A swarm of one against a gate that says what the test tells it to, over real sockets and mutual TLS."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.fleetsim.gate_double import GateDouble, Http, Puback, make_pki, serving

from fleetsim import encode
from fleetsim.bundle import read_bundle
from fleetsim.gate import RunError
from fleetsim.swarm import Swarm
from fleetsim.swarm_plan import Plan
from fleetsim.swarm_work import Shape, bodies

COLUMNS = Shape(3, 2, form="columns")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki") / "made"
    make_pki(directory)
    return directory


def swarm(double: GateDouble, pki: Path, **changed: Any) -> tuple[dict[str, Any], list[str]]:
    """(report, phases) of one connection, unless more are asked for, for a fifth of a second."""
    phases: list[str] = []

    async def main() -> dict[str, Any]:
        async with serving(double, pki) as (mqtt, https):
            plan = Plan(https if changed.get("batch") else mqtt, "localhost", 1, Shape(), 0.2, 0.05)
            made = Swarm(plan._replace(**{"connect_s": 10.0} | changed), [read_bundle(pki / "device")], phases.append)
            return await asyncio.to_thread(made.run)

    return asyncio.run(main()), phases


def stalled(seconds: float) -> Puback:
    """The whole gate stands still, then accepts."""
    time.sleep(seconds)
    return Puback()


def test_every_message_that_was_sent_is_answered_and_counted(pki: Path) -> None:
    """What the swarm counts is what the gate received, each number once."""
    double = GateDouble(epoch=6)
    report, _ = swarm(double, pki, in_flight=3, prepare=10)
    sent = [encode.decode_envelope(raw) for raw in double.received]
    assert report["answers_in_all"] == {"accepted": len(sent)}
    assert [(e.epoch, e.seq) for e in sent] == [(7, seq) for seq in range(len(sent))]


def test_bodies_of_somebody_else_are_sent_as_they_are(pki: Path) -> None:
    """A gate with another body is loaded by the same swarm: number and tag are the swarm's, the body is not."""
    double = GateDouble()
    swarm(double, pki, bodies=(b"one", b"two"))
    sent = [encode.decode_envelope(raw).body for raw in double.received]
    assert sent[:3] == [b"one", b"two", b"one"]


def test_messages_that_were_not_prepared_go_out_when_they_are_due(pki: Path) -> None:
    """Nothing is signed ahead at a rate: a burst of signing would stand in every latency of that moment."""
    double = GateDouble()
    report, _ = swarm(double, pki, rate=200.0)
    assert report["answers_in_all"] == {"accepted": len(double.received)}
    assert report["unanswered"] == 0


def test_messages_signed_while_the_clock_runs_are_counted(pki: Path) -> None:
    """Two were prepared: the rest was signed late, and the report says so."""
    report, _ = swarm(GateDouble(), pki, prepare=2, warm_up_s=0.0)
    assert report["late_messages"] == report["answers_in_all"]["accepted"] - 2


def test_enough_prepared_messages_leave_none_late(pki: Path) -> None:
    """At a rate it is known how many are needed."""
    report, _ = swarm(GateDouble(), pki, prepare=100, rate=100.0)
    assert (report["late_messages"], report["unanswered"]) == (0, 0)


def test_what_is_due_at_the_end_is_sent_and_counts_from_when_it_was_due(pki: Path) -> None:
    """The gate stalls for the end of the measured time: what waited there has its whole wait in the percentiles."""
    double = GateDouble(puback=lambda count: stalled(0.3) if count == 5 else Puback())
    report, _ = swarm(double, pki, rate=100.0, prepare=100)
    assert report["overdue"] > 0
    assert report["unanswered"] == 0
    assert report["answers_in_all"] == {"accepted": len(double.received)}
    assert report["ack_ms"]["p50"] > 50


def test_what_is_never_answered_counts_with_its_age(pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate falls silent: nothing of it is left out of the percentiles, and it is said how many."""
    monkeypatch.setattr("fleetsim.swarm.DRAIN_S", 0.2)
    double = GateDouble(puback=lambda count: stalled(1.0) if count == 8 else Puback())
    report, _ = swarm(double, pki, rate=100.0, prepare=100)
    assert report["unanswered"] > 1
    assert report["ack_ms"]["max"] > 200


def every_item(body: bytes) -> Http:
    items = [{"epoch": 1, "seq": 0, "status": "accepted", "reason": None}] * len(msgspec.msgpack.decode(body))
    return Http(202, msgspec.msgpack.encode(items))


@pytest.mark.parametrize(
    "last_words",
    {"none": None, "another number of items": Http(202, b"\x90"), "no items": Http(202, b"\xc1")}.values(),
)
def test_what_was_in_flight_on_a_connection_that_ended_is_unanswered(pki: Path, last_words: Http | None) -> None:
    """One of two ends in the midst: every message that the gate received is in the report, and the other goes on."""
    double = GateDouble(http=lambda count, body: last_words if count == 4 else every_item(body))
    report, _ = swarm(double, pki, batch=5, connections=2)
    assert report["unanswered"] == 5
    assert report["answers_in_all"] == {"accepted": 5 * (len(double.requests) - 1)}
    assert sum(report["ended"].values()) == 1


def test_what_is_lost_with_its_connection_counts_with_its_age(pki: Path) -> None:
    """At a rate, as what is never answered on one that lives."""
    double = GateDouble(http=lambda count, body: None if count == 1 else every_item(body))
    report, _ = swarm(double, pki, batch=5, connections=2, rate=100.0, warm_up_s=0.0)
    assert report["unanswered"] == 5
    assert report["ack_ms"]["max"] > 100


@pytest.mark.parametrize(
    ("changed", "events_each"),
    [
        ({"shape": Shape(3, 2)}, 3),
        ({"drive": True}, 1),
        ({"shape": Shape(3, 2), "bodies": tuple(bodies(Shape(7), random.Random(1)))}, 7),
        ({"shape": COLUMNS, "bodies": tuple(bodies(COLUMNS._replace(events=9), random.Random(1)))}, 9),
        ({"bodies": (b"one", b"two")}, None),
    ],
    ids=["shape", "drive", "bodies", "bodies in columns", "bodies of another gate"],
)
def test_events_are_those_that_were_sent(pki: Path, changed: dict[str, Any], events_each: int | None) -> None:
    """Whatever the shape says that was not used; of bodies that cannot be read nobody knows."""
    report, _ = swarm(GateDouble(), pki, **changed)
    seen = report["events_per_s"]
    assert (seen and seen / report["messages_per_s"]) == (events_each and pytest.approx(events_each, rel=0.01))


def test_phases_are_told_in_their_order(pki: Path) -> None:
    """Others read the cost of the gate between `measuring` and `measured`."""
    _, phases = swarm(GateDouble(), pki)
    assert phases == ["connected", "measuring", "measured"]


def test_a_refused_message_is_counted_and_not_sent_again(pki: Path) -> None:
    """The second message is refused; every number still goes out once."""
    double = GateDouble(puback=lambda count: Puback(0x99, "malformed_body") if count == 1 else Puback())
    report, _ = swarm(double, pki)
    assert report["answers_in_all"]["malformed_body"] == 1
    assert len({encode.decode_envelope(raw).seq for raw in double.received}) == len(double.received)


def test_a_rate_is_not_exceeded(pki: Path) -> None:
    """At 100 a second no more go out than are due in the measured time and a second around it; unbound it is
    thousands."""
    double = GateDouble()
    report, _ = swarm(double, pki, rate=100.0)
    assert 0 < len(double.received) <= 100 * (report["seconds"] + 1)


def test_a_gate_that_ends_every_connection_ends_the_run(pki: Path) -> None:
    """Nothing can be measured, and the error says what the gate said."""
    with pytest.raises(RunError, match="disconnect_0x87"):
        swarm(GateDouble(goodbye=0x87), pki)


def test_a_gate_that_refuses_everybody_ends_the_run(pki: Path) -> None:
    """No connection came up, and the error says why."""
    with pytest.raises(RunError, match="connack_0x87"):
        swarm(GateDouble(connack=lambda _: 0x87), pki)


def test_a_herd_comes_in_twice(pki: Path) -> None:
    """All connections are dropped at once and come in again; both times are reported."""
    double = GateDouble()
    report, _ = swarm(double, pki, reconnect=True, seconds=0.0)
    assert (double.connects, report["connect"]["live"], report["reconnect"]["live"]) == (2, 1, 1)


def test_posts_hold_as_many_envelopes_as_asked(pki: Path) -> None:
    """Over HTTPS each request is a batch, and each of its items counts."""

    double = GateDouble(http=lambda _, body: every_item(body))
    report, _ = swarm(double, pki, batch=5)
    assert {len(msgspec.msgpack.decode(body)) for body in double.requests} == {5}
    assert report["answers_in_all"] == {"accepted": 5 * len(double.requests)}


def test_more_connections_than_devices_are_refused_over_mqtt(pki: Path) -> None:
    """A second session would take the first one over: the person is told how many devices are needed."""
    plan = Plan(("127.0.0.1", 1), "localhost", 2, Shape(), 1.0)
    with pytest.raises(RunError, match="2 connections need as many devices"):
        Swarm(plan, [read_bundle(pki / "device")], lambda _: None)
