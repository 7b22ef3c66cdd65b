"""Each limit of each level holds, over both transports, and only a device's own excess is recorded against it.

The limits here are of an hour, so what is used up stays so. Whoever is above his own is told so; who shares one that is
used up for longer than he can be left unread is sent away, and gets 429 over HTTPS.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import msgspec
import pytest
from mqtt5 import PubAckPacket
from tests.gate import Gate, Installation, replace, running, until
from tests.http_peer import JSON, MSGPACK, HttpPeer, HttpsWire
from tests.mqtt_peer import Ended, MqttPeer, publish_bytes, told
from tests.units import pack

OWN = {"messages": "20/h", "bytes": "9000/h", "events": "200/h", "connections": "4/h", "handshakes": "9/h"}
OF_TWO = {"messages": "30/h", "bytes": "12000/h", "events": "300/h", "connections": "4/h"}
OF_THREE = {"messages": "40/h", "bytes": "18000/h", "events": "400/h", "connections": "9/h", "handshakes": "20/h"}
CARS = {"device": 1, "software": 2, "tenant": 3, "issuer": 3, "gate": 3}
"""So many use up what they share, each within its own."""

SENT = ("messages", "bytes", "events")
WITHIN = {"messages": (16, 1, 0), "bytes": (8, 3, 250), "events": (3, 60, 0)}
"""Messages of one car, events in each, text in each event."""

ABOVE = {"messages": (25, 1, 0), "bytes": (2, 20, 250), "events": (4, 60, 0)}

_numbers = itertools.count()


class Member:
    """A car of a group, and the messages that it signs; `software` is the version that it says it has."""

    def __init__(self, gate: Gate, tenant: str, software: str) -> None:
        self.gate = gate
        self.car = gate.home.enrol(f"car-{next(_numbers)}", tenant=tenant)
        self._software = software
        self._seq = itertools.count()

    def message(self, events: int = 1, text: int = 0) -> bytes:
        event = [0, "sample", {1: 50.5}, {44: "x" * text} if text else {}]
        return self.car.sign(1, next(self._seq), body=pack([self._software, "cfg", [event] * events]))

    def burst(self, peer: MqttPeer, messages: int, events: int, text: int) -> list[int]:
        """Sends them in one write; the codes of their answers."""
        raws = [self.message(events, text) for _ in range(messages)]
        peer.send(b"".join(publish_bytes(self.car.topic, raw, packet_id=at) for at, raw in enumerate(raws, start=1)))
        return [told(peer.packet(PubAckPacket))[0] for _ in raws]

    def refused(self) -> int:
        return self.gate.refused(self.car, "rate_limited")


def group(gate: Gate, level: str) -> list[Member]:
    """Cars of a new tenant: of one software version, unless it is the tenant's limit, or a wider one, that is tried."""
    tenant = f"tenant-{next(_numbers)}"
    versions = ["2026.1"] * 3 if level == "software" else ["2026.1", "2026.2", "2026.3"]
    return [Member(gate, tenant, version) for version in versions[: CARS[level]]]


@pytest.fixture(scope="module")
def narrow_gate(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    limits = {"device": OWN, "software": OF_TWO, "tenant": OF_THREE}
    with running(authority, tmp_path_factory.mktemp("narrow"), limits=limits) as gate:
        yield gate


@pytest.fixture(scope="module")
def other_gate(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """One CA has issued the certificates of all tests, so issuer and gate have one limit at a time."""
    with running(authority, tmp_path_factory.mktemp("wide")) as gate:
        yield gate


@pytest.fixture
def limited(request: pytest.FixtureRequest, level: str, quantity: str) -> Gate:
    """A gate with this limit, of which nothing is used up."""
    if level in ("device", "software", "tenant"):
        gate: Gate = request.getfixturevalue("narrow_gate")
        return gate
    gate = request.getfixturevalue("other_gate")
    limit(gate, level, quantity, OF_THREE[quantity])
    return gate


def limit(gate: Gate, level: str, quantity: str, rate: str) -> None:
    """Gives a running gate another limit, in the place of any that it has."""
    file = gate.home.directory / "fleetgate.toml"
    replaced = gate.metric("fleetgate_files_replaced_total")
    before = file.read_text().partition("[limits.")[0]
    replace(file, f'{before}[limits.{level}]\n{quantity} = "{rate}"\n'.encode())
    until(lambda: gate.metric("fleetgate_files_replaced_total") > replaced, "the limit is in force")


@pytest.fixture
def hits(limited: Gate, level: str, quantity: str) -> Callable[[], float]:
    """How often this limit has made somebody wait since the test began."""
    sample = f'fleetgate_limit_hits_total{{level="{level}",quantity="{quantity}"}}'
    before = limited.metric(sample)
    return lambda: limited.metric(sample) - before


@pytest.mark.parametrize("quantity", SENT)
@pytest.mark.parametrize("level", ["device"])
def test_a_device_above_its_own_limit_is_told_and_recorded(
    limited: Gate, hits: Callable[[], float], quantity: str
) -> None:
    """0x97 and 429; the session goes on."""
    [member] = group(limited, "device")
    with MqttPeer(limited, member.car).hello() as peer, HttpPeer(limited, member.car) as client:
        assert member.burst(peer, *ABOVE[quantity])[0] == 0
        assert told(peer.ask(member.message())) == (0x97, "rate_limited")
        answer = client.post(member.message())
        assert (answer.status, answer.items["detail"]) == (429, "this device sends too fast")
        assert 1 <= int(answer.headers["retry-after"]) <= 3600
    until(lambda: member.refused() >= 2, "both are recorded")
    assert hits() == member.refused()


@pytest.mark.parametrize("quantity", SENT)
@pytest.mark.parametrize("level", ["software", "tenant", "issuer", "gate"])
def test_who_shares_a_limit_that_is_used_up_waits_and_is_not_blamed(
    limited: Gate, hits: Callable[[], float], level: str, quantity: str
) -> None:
    """However few messages are one's own. A tenant with a limit of its own does not notice."""
    members = group(limited, level)
    with ExitStack() as peers:
        sessions = [peers.enter_context(MqttPeer(limited, member.car).hello()) for member in members]
        for member, peer in zip(members, sessions, strict=True):
            assert set(member.burst(peer, *WITHIN[quantity])) == {0}
        assert hits() == 0
        sessions[0].publish(members[0].message())
        assert sessions[0].farewell().reason_code == 0x97
        with MqttPeer(limited, members[0].car) as again:
            assert again.greet().reason_code == 0x97
        client = peers.enter_context(HttpPeer(limited, members[-1].car))
        answer = client.post(members[-1].message())
        assert (answer.status, answer.items["detail"]) == (
            429,
            "a limit that this device shares with others is used up",
        )
        assert int(answer.headers["retry-after"]) >= 1
        assert hits() == 3
    if level == "tenant":
        [other] = group(limited, "device")
        with MqttPeer(limited, other.car).hello() as peer:
            assert told(peer.ask(other.message())) == (0, None)
    assert [member.refused() for member in members] == [0] * len(members)


@pytest.mark.parametrize("quantity", ["connections"])
@pytest.mark.parametrize("level", ["device", "software", "tenant", "issuer", "gate"])
def test_connections_above_a_limit_are_turned_away(limited: Gate, hits: Callable[[], float], level: str) -> None:
    """By the gate at once, before TLS; by the others when it is known whose they are: CONNACK 0x9F, 429."""
    members = group(limited, level)
    for member in members:
        for _ in range(4 if level == "device" else 3):
            with MqttPeer(limited, member.car).hello() as peer:
                assert told(peer.ask(member.message())) == (0, None)  # from then on its software version is known
    assert hits() == 0
    last = members[-1]
    if level == "gate":
        with pytest.raises((OSError, Ended)), MqttPeer(limited, last.car) as peer:
            peer.hello()
        with HttpPeer(limited, last.car) as client, pytest.raises(httpx.TransportError):
            client.post(last.message())
    else:
        with MqttPeer(limited, last.car) as peer:
            assert peer.greet().reason_code == 0x9F
        with HttpPeer(limited, last.car) as client:
            answer = client.post(last.message())
            assert (answer.status, answer.items["detail"]) == (429, "too many connections")
    assert hits() == 2
    assert last.refused() == (2 if level == "device" else 0)


@pytest.mark.parametrize("quantity", ["handshakes"])
@pytest.mark.parametrize("level", ["device", "tenant", "issuer", "gate"])
def test_handshakes_above_a_limit_end_without_a_word(limited: Gate, hits: Callable[[], float], level: str) -> None:
    """By the gate before they cost anything; by the others when the certificate is seen, before CONNECT. They are
    recorded against nobody: a bad mobile network is a cause too."""
    members = group(limited, level)
    with ExitStack() as peers:
        for member in members:
            for _ in range(9 if level == "device" else 7):
                with suppress(OSError):  # the gate ends it in the middle
                    peers.enter_context(MqttPeer(limited, member.car))
        last = members[-1]
        with suppress(OSError), MqttPeer(limited, last.car) as peer:
            assert peer.rest() == []
        with HttpPeer(limited, last.car) as client, pytest.raises(httpx.TransportError):
            client.post(last.message())
    until(lambda: hits() >= 2, "both are counted")
    assert last.refused() == 0


def test_who_is_not_read_from_goes_on_later_and_is_not_silent_meanwhile(other_gate: Gate) -> None:
    """For longer than its keep-alive; what it sent is stored and answered then, and others do not wait."""
    limit(other_gate, "tenant", "messages", "50/5s")
    [member], [other] = group(other_gate, "device"), group(other_gate, "device")
    sample = 'fleetgate_limit_hits_total{level="tenant",quantity="messages"}'
    before = other_gate.metric(sample)
    with (
        MqttPeer(other_gate, member.car).hello(keep_alive=1) as paused,
        MqttPeer(other_gate, other.car).hello() as free,
    ):
        while other_gate.metric(sample) == before:  # at once, but on a machine that stands still for seconds
            member.burst(paused, 80, 1, 0)
            paused.publish(member.message())
            assert told(free.ask(other.message())) == (0, None)
        assert told(paused.packet(PubAckPacket)) == (0, None)
        assert told(paused.ask(member.message())) == (0, None)
    assert member.refused() == 0


def test_who_floods_above_his_own_limit_takes_nothing_of_what_he_shares(
    authority: Installation, tmp_path: Path
) -> None:
    """Megabytes from a device that may send 20 messages in 10 s, in a tenant that may send 150 kB: what is beyond its
    own limit stays unread, and the others have the tenant's for themselves."""
    limits = {"device": {"messages": "20/10s"}, "tenant": {"bytes": "150000/h"}}
    with running(authority, tmp_path, limits=limits) as gate:
        flooding, quiet = (Member(gate, "flooded", "2026.1") for _ in range(2))
        with MqttPeer(gate, flooding.car).hello() as flood, MqttPeer(gate, quiet.car).hello() as peer:
            one = publish_bytes(flooding.car.topic, flooding.message(), qos=0)
            flood.sock.settimeout(1.0)
            with suppress(TimeoutError):  # nobody reads it
                flood.send(one * (4_000_000 // len(one)))
            answers = [told(peer.ask(quiet.message())) for _ in range(10)]
            hits = gate.metric('fleetgate_limit_hits_total{level="tenant",quantity="bytes"}')
        assert (answers, hits) == ([(0, None)] * 10, 0)
        until(lambda: flooding.refused() > 0, "the flood is on record")


SMALL = {"device": {"bytes": "100000/h"}, "tenant": {"bytes": "150000/h"}}
"""Less than one body of the following tests; more than a few messages."""


@pytest.fixture
def small_gate(authority: Installation, tmp_path: Path) -> Iterator[Gate]:
    with running(authority, tmp_path, limits=SMALL) as gate:
        yield gate


def told_over_https(member: Member) -> tuple[int, str]:
    """What a message gets now: the status, and the words of a refusal."""
    with HttpPeer(member.gate, member.car) as peer:
        answer = peer.post(member.message())
    return answer.status, answer.items["detail"] if answer.status != 202 else ""


TOO_FAST = (429, "this device sends too fast")
SHARED = (429, "a limit that this device shares with others is used up")


@pytest.mark.parametrize(("body", "form", "status"), [
    (b"[" + b" " * 200_000 + b"]", JSON, 202),
    (msgspec.msgpack.encode([b"x" * 400] * 501), MSGPACK, 413),
    (bytes(2_000_000), MSGPACK, 413),
    (bytes(200_000), "text/plain", 415),
], ids=["padded", "too-many", "too-large", "another-type"])  # fmt: skip
def test_each_byte_of_a_body_counts_whatever_it_holds(small_gate: Gate, body: bytes, form: str, status: int) -> None:
    """For the device's own limit as for its tenant's: what cost only the others would let one device pause them all."""
    sender, other = (Member(small_gate, "small", "2026.1") for _ in range(2))
    with HttpPeer(small_gate, sender.car) as peer:
        peer.ask(sender.message())
        assert peer.post(body, form).status == status
    until(lambda: told_over_https(sender) == TOO_FAST, "what came behind the answer is charged too")
    assert told_over_https(other) == SHARED
    assert other.refused() == 0


def test_a_body_that_is_cut_counts_as_far_as_it_came_and_is_no_refusal(small_gate: Gate) -> None:
    """A bad mobile network cuts bodies too: what came of it is charged, and nothing is held against the device."""
    sender, other = (Member(small_gate, "cut", "2026.1") for _ in range(2))
    with HttpsWire(small_gate, sender.car) as wire:
        wire.sock.sendall(wire.request(bytes(1_000_000))[:300_000])
        time.sleep(0.5)  # the gate reads it before it sees the end
    until(lambda: told_over_https(other) == SHARED, "what came is charged")
    assert [small_gate.refused(sender.car, reason) for reason in ("oversized", "rate_limited")] == [0, 0]
    assert told_over_https(sender) == TOO_FAST


def test_a_batch_costs_its_bytes_once(other_gate: Gate) -> None:
    """As many as there are in its body: a device with one byte more than that sends another."""
    [member] = group(other_gate, "device")
    body = msgspec.msgpack.encode([member.message() for _ in range(100)])
    with HttpPeer(other_gate, member.car) as peer:
        limit(other_gate, "device", "bytes", f"{len(body) + 1}/day")
        assert [peer.post(content).status for content in (body, member.message(), member.message())] == [202, 202, 429]
