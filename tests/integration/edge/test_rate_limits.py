"""A device above its rate is slowed down by itself, over both transports, and loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.gate import Car, Gate, Installation, running, until
from tests.http_peer import MSGPACK, HttpPeer
from tests.http_peer import told as told_item
from tests.mqtt_peer import MqttPeer, told
from tests.units import pack


@pytest.fixture(scope="module")
def narrow_gate(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """A gate that takes 5 messages at once and one a second."""
    with running(authority, tmp_path_factory.mktemp("narrow"), limits={"device": {"messages": "5/5s"}}) as gate:
        yield gate


@pytest.fixture
def fast_car(narrow_gate: Gate) -> Car:
    return narrow_gate.home.enrol(f"fast-{len(narrow_gate.home.cars)}")


def test_mqtt_above_the_rate_is_0x97_and_the_same_bytes_pass_later(narrow_gate: Gate, fast_car: Car) -> None:
    """What did not pass was not looked at: the retry is no duplicate."""
    with MqttPeer(narrow_gate, fast_car) as peer:
        peer.hello()
        answers = [told(peer.ask(fast_car.sign(1, seq))) for seq in range(10)]
        assert (answers[:5], answers[-1]) == ([(0, None)] * 5, (0x97, "rate_limited"))
        raw = fast_car.sign(1, 10)
        until(lambda: told(peer.ask(raw)) == (0, None), "the bucket fills again", 20)


def test_https_above_the_rate_is_429_with_the_seconds_to_wait(narrow_gate: Gate, fast_car: Car) -> None:
    """A batch may overdraw the bucket, so it is never cut in half; the next request waits and claims nothing."""
    with HttpPeer(narrow_gate, fast_car) as peer:
        hits = 'fleetgate_rejections_total{reason="rate_limited",step="0",transport="https"}'
        before = narrow_gate.metric(hits)
        first = peer.batch(*(fast_car.sign(1, seq) for seq in range(8)))
        second = peer.post(fast_car.sign(1, 8))
        assert narrow_gate.metric(hits) == before + 1
        assert (first.status, second.status) == (202, 429)
        assert 1 <= int(second.headers["retry-after"]) <= 5


def test_one_fast_device_does_not_slow_another(narrow_gate: Gate, fast_car: Car) -> None:
    """The bucket is the device's own."""
    other = narrow_gate.home.enrol("steady")
    with HttpPeer(narrow_gate, fast_car) as fast, HttpPeer(narrow_gate, other) as steady:
        fast.batch(*(fast_car.sign(1, seq) for seq in range(20)))
        assert told_item(steady.ask(other.sign(1, 0))) == ("accepted", None)


def test_a_large_message_counts_as_several(narrow_gate: Gate, fast_car: Car) -> None:
    """Over both transports each KiB is one more, so nobody sends what is dear within the rate."""
    large = {"body": pack(["2026.44.1", "cfg", [[0, "sample", {1: 50.5}, {}]] * 400])}  # 8 KiB
    with HttpPeer(narrow_gate, fast_car) as peer:
        assert told_item(peer.ask(fast_car.sign(1, 0, **large))) == ("accepted", None)
        answer = peer.post(fast_car.sign(1, 1))
        assert (answer.status, 3 <= int(answer.headers["retry-after"]) <= 5) == (429, True)
    other = narrow_gate.home.enrol("large-over-mqtt")
    with MqttPeer(narrow_gate, other) as mqtt:
        mqtt.hello()
        answers = [told(mqtt.ask(other.sign(1, seq, **given))) for seq, given in enumerate((large, {}))]
        assert answers == [(0, None), (0x97, "rate_limited")]


def test_requests_without_a_message_count_too(narrow_gate: Gate, fast_car: Car) -> None:
    """An empty batch is a message; what asks for no route of ours has a rate of its own."""
    with HttpPeer(narrow_gate, fast_car) as peer:
        empty = [peer.batch().status for _ in range(10)]
        assert (empty[:5], empty[-1]) == ([202] * 5, 429)
        assert any(peer.request("GET", "/v1/else").status == 429 for _ in range(1000))


def test_who_is_refused_is_limited_too(narrow_gate: Gate, stranger: Car) -> None:
    """A certificate that control does not know gets one batch of answers, and is then told to wait, unread, on each of
    its connections; nobody else waits for it."""
    with HttpPeer(narrow_gate, stranger) as one, HttpPeer(narrow_gate, stranger) as two:
        first = one.batch(*(stranger.sign(1, seq) for seq in range(500)))
        assert (first.status, {told_item(item) for item in first.items}) == (202, {("rejected", "unknown_device")})
        assert [peer.post(stranger.sign(1, 500)).status for peer in (one, two)] == [429, 429]
    steady = narrow_gate.home.enrol("beside-a-stranger")
    with HttpPeer(narrow_gate, steady) as peer:
        assert told_item(peer.ask(steady.sign(1, 0))) == ("accepted", None)


def test_what_others_use_up_while_a_body_comes_costs_a_device_nothing(authority: Installation, tmp_path: Path) -> None:
    """The tenant's rate is used up by another car between head and end of a request: the batch passes later, for
    neither its own messages of the day nor its score have suffered."""
    with running(
        authority, tmp_path, limits={"device": {"messages": "10/day"}, "tenant": {"messages": "10/s"}}
    ) as gate:
        slow, fast = (gate.home.enrol(name) for name in ("slow", "fast"))
        batch = msgspec.msgpack.encode([slow.sign(1, seq) for seq in range(1, 15)])
        with HttpPeer(gate, slow) as peer, HttpPeer(gate, fast) as other:
            peer.ask(slow.sign(1, 0))
            other.ask(fast.sign(1, 0))

            def body() -> Iterator[bytes]:
                yield batch[:-1]
                time.sleep(0.3)  # its head is read meanwhile
                assert other.batch(*(fast.sign(1, seq) for seq in range(1, 30))).status == 202
                yield batch[-1:]

            headers = {"content-type": MSGPACK, "content-length": str(len(batch))}
            answer = peer.request("POST", content=body(), headers=headers)
            assert (answer.status, "shares with others" in answer.items["detail"]) == (429, True)
            until(lambda: peer.post(batch).status == 202, "the tenant's rate comes back", 20)
        assert gate.metric('fleetgate_rejections_total{reason="rate_limited",step="0",transport="https"}') == 0
