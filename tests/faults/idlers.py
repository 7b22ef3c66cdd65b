"""Clients that take their time, as the faults of `clients` use them: certificates are real, patience is endless.

An `Idler` sends what it has a byte a second, or nothing more, and notes when the gate ended the connection. `Deaf` is a
car of the fleet that reads no answers on its first connection; on the next it is a car like any other, so that the
oracle sees what became of what it sent. Decides how they behave; what is asked of the gate meanwhile is the fault's.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Sequence

from tests.faults.cars import MqttDriver
from tests.faults.journal import Message, Send
from tests.gate import Car, Gate
from tests.mqtt_peer import Ended, MqttPeer

BYTE_SECONDS = 1.0
SMALL_BUFFER = 4096
DEAF_SECONDS = 60.0
PINGREQS = b"\xc0\x00" * 32_768  # each asks for an answer of as many bytes


class Idler:
    """One connection; `drips` go out a byte a second. It ought to be ended after `deadline_s`."""

    def __init__(self, what: str, sock: socket.socket, drips: bytes, deadline_s: float) -> None:
        self.what = what
        self.deadline_s = deadline_s
        self.ended_after_s: float | None = None
        self._sock = sock
        self._drips = drips
        self._began_s = time.monotonic()
        sock.setblocking(False)

    def tick(self) -> None:
        """A second has passed."""
        if self.ended_after_s is not None:
            return
        try:
            if self._drips:
                self._sock.send(self._drips[:1])
                self._drips = self._drips[1:]
            while self._sock.recv(65536):
                pass
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
            return
        except OSError:
            pass
        self.ended_after_s = time.monotonic() - self._began_s

    def close(self) -> None:
        self._sock.close()


class Idlers(threading.Thread):
    """Lets all of them tick, from a thread of its own, until `close`."""

    def __init__(self, idlers: Sequence[Idler]) -> None:
        super().__init__(name="idlers", daemon=True)
        self.all = idlers
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(BYTE_SECONDS):
            for idler in self.all:
                idler.tick()

    def close(self) -> None:
        self._over.set()
        self.join(BYTE_SECONDS * 5)
        for idler in self.all:
            idler.close()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def secured(port: int, car: Car) -> ssl.SSLSocket:
    return car.context().wrap_socket(connected(port), server_hostname="localhost")


class Deaf(MqttDriver):
    """`cut_after_s` is when the gate ended the connection on which it read nothing."""

    cut_after_s: float | None = None

    def _session(self) -> None:
        if self.cut_after_s is not None:
            return super()._session()
        began_s = time.monotonic()
        with MqttPeer(self._gate, self.car, buffer=SMALL_BUFFER, deadline_s=DEAF_SECONDS) as peer:
            self._greet(peer)
            unheard: dict[int, tuple[Send, Message]] = {}
            for _ in range(3):
                self._send(peer, unheard, self._burst(self.most))
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while True:
                    peer.send(
                        PINGREQS
                    )  # blocks when the gate reads no more, and fails when it has ended the connection
        self.cut_after_s = time.monotonic() - began_s
        raise Ended("cut")


class DeafHttps(threading.Thread):
    """Asks over HTTPS, request behind request, and reads no answer. It sends no telemetry: nothing is stored."""

    cut_after_s: float | None = None

    def __init__(self, gate: Gate, car: Car) -> None:
        super().__init__(name="deaf over https", daemon=True)
        self._gate = gate
        self._car = car

    def run(self) -> None:
        began_s = time.monotonic()
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        plain.settimeout(DEAF_SECONDS)
        plain.connect(("127.0.0.1", self._gate.https_port))
        request = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
        with self._car.context().wrap_socket(plain, server_hostname="localhost") as sock:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                while True:
                    sock.sendall(request)
            self.cut_after_s = time.monotonic() - began_s
