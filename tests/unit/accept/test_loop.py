"""The loop that drives the MQTT sockets, where what it calls fails in a way that nobody foresaw."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from prometheus_client.registry import CollectorRegistry
from tests.spools import SetClock

from fleetgate.accept.connection import Connection
from fleetgate.accept.counts import Counts
from fleetgate.accept.entrance import Entrance
from fleetgate.accept.limits import Limits, Quantity
from fleetgate.accept.loop import SocketLoop
from fleetgate.accept.turns import Turns
from fleetgate.clock import SystemClock
from fleetgate.config import Edge, Limit
from fleetgate.config import Limits as Settings


class Stub(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]  # a namespace has none


@pytest.fixture
def loop() -> Iterator[SocketLoop]:
    """Of an edge with room; what it calls is put in by a test."""
    unused: Any = SimpleNamespace()
    counts = Counts(CollectorRegistry())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    intake: Any = SimpleNamespace(wake=lambda: None, counts=counts)
    door: Any = SimpleNamespace(look_again=lambda session: None)
    room: Any = SimpleNamespace(open=True)
    turns, limits, clock = Turns(), Limits(Settings(), counts.limit_hits), SystemClock()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        entrance = Entrance(listener, turns, context, unused, unused, limits, unused, counts, clock)
        yield SocketLoop(turns, entrance, Edge(), intake, door, room, limits, clock)


def test_both_doors_count_the_gates_connections_by_one_clock() -> None:
    """Where it is not this machine's: what came in over HTTPS a moment ago is a moment ago for MQTT too."""
    counts, unused, clock = Counts(CollectorRegistry()), SimpleNamespace(), SetClock()
    clock.ms = int((time.monotonic() + 3600) * 1000)
    limits = Limits(Settings(gate=Limit(connections="2/s")), counts.limit_hits)
    proxies: Any = SimpleNamespace(sends_header=lambda address: False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        listener.setblocking(False)
        entrance = Entrance(listener, Turns(), context, unused, proxies, limits, unused, counts, clock)  # type: ignore[arg-type]  # not got to
        assert limits.admit_to_gate(Quantity.CONNECTIONS, clock.monotonic())
        [connection] = entrance.accept([], 9)
        connection.sock.close()


class Overlooked(Connection):
    def handshake(self) -> list[bytes] | int:
        raise RuntimeError("what OpenSSL had never said before")


def test_a_handshake_that_fails_as_nobody_foresaw_ends_its_own_connection(loop: SocketLoop) -> None:
    """Whatever it raised: the loop, and with it every other vehicle, goes on."""
    ours, theirs = socket.socketpair()
    with theirs:
        connection = Overlooked(ours, "vehicle", 0)  # type: ignore[arg-type]  # TLS is not got to
        loop._shake_hands(connection, 0)
        assert loop._counts.failed_handshakes == 1
        assert theirs.recv(1) == b""


@pytest.mark.parametrize("which", ["slowed", "in a line"])
@pytest.mark.parametrize("why", ["its certificate has expired", "its credential was followed by another"])
def test_a_session_that_is_not_read_from_ends_all_the_same(loop: SocketLoop, which: str, why: str) -> None:
    """A device may have itself slowed down, by going on with what is refused, for as long as it likes."""
    expired = why == "its certificate has expired"
    ended: list[str] = []
    session: Any = Stub(
        identity=SimpleNamespace(not_after_ms=0 if expired else 1 << 62),
        slowed=which == "slowed",
        last_packet_s=0.0,
        end=lambda code, why: ended.append(code.name),
        overdue=lambda now_s: True,
    )
    loop._door.look_again = lambda session: ended.append("looked again")  # type: ignore[method-assign]
    connection: Any = SimpleNamespace(line=None if session.slowed else "a line")
    loop._look_after(connection, session, 7.0)
    assert ended == (["NOT_AUTHORIZED"] if expired else ["looked again"])
    assert session.last_packet_s == (0.0 if expired else 7.0)


def test_who_waits_in_a_line_goes_on_when_there_is_room_again(
    loop: SocketLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where nobody else sends anything that would wake the loop."""
    monkeypatch.setattr("fleetgate.accept.loop.ROOM_SECONDS", 0.0)
    line: Any = Stub(due_s=0.0)
    loop._lines._of[line] = line
    loop._room.open = False  # type: ignore[misc]
    trio.run(loop._until_somebody_is_due)  # returns
