"""The loop that drives the MQTT sockets, where what it calls fails in a way that nobody foresaw."""

from __future__ import annotations

import socket
import ssl
from types import SimpleNamespace
from typing import Any

from prometheus_client.registry import CollectorRegistry

from fleetgate.accept.connection import Connection
from fleetgate.accept.counts import Counts
from fleetgate.accept.entrance import Entrance
from fleetgate.accept.limits import Limits
from fleetgate.accept.loop import SocketLoop
from fleetgate.accept.turns import Turns
from fleetgate.clock import SystemClock
from fleetgate.config import Edge
from fleetgate.config import Limits as Settings


class Overlooked(Connection):
    def handshake(self) -> list[bytes] | int:
        raise RuntimeError("what OpenSSL had never said before")


def test_a_handshake_that_fails_as_nobody_foresaw_ends_its_own_connection() -> None:
    """Whatever it raised: the loop, and with it every other vehicle, goes on."""
    ours, theirs = socket.socketpair()
    unused: Any = SimpleNamespace()
    counts = Counts(CollectorRegistry())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with socket.create_server(("127.0.0.1", 0)) as listener, theirs:
        limits = Limits(Settings(), counts.limit_hits)
        turns = Turns()
        entrance = Entrance(listener, turns, context, unused, unused, limits, counts, SystemClock())
        intake: Any = SimpleNamespace(counts=counts)
        loop = SocketLoop(turns, entrance, Edge(), intake, unused, unused, limits, SystemClock())
        connection = Overlooked(ours, "vehicle", 0)  # type: ignore[arg-type]  # TLS is not got to
        loop._shake_hands(connection, 0)
        assert counts.failed_handshakes == 1
        assert theirs.recv(1) == b""
