"""Whoever may answer on a port, as the doctor's tests need them: plain, TLS, honest and hostile; in threads.

A stranger serves each connection by one function; with TLS, the handshake is done before it is called.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetgate.doctor.reach import Target

Answer = Callable[[socket.socket], None]


@contextmanager
def stranger(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[Target]:
    """Listens on a free port of 127.0.0.1 while entered."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_now: list[socket.socket] = []

    def serve(plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain:
            sock = context.wrap_socket(plain, server_side=True) if context is not None else plain
            with contextlib.suppress(OSError), sock:
                answer(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                plain.settimeout(10)
                open_now.append(plain)
                threading.Thread(target=serve, args=(plain,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield Target("127.0.0.1", listener.getsockname()[1])
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for plain in open_now:
            with contextlib.suppress(OSError):
                plain.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def tls_of(pki: Path, *, trusted: Path | None = None) -> ssl.SSLContext:
    """TLS with the certificate of the gate whose PKI this is; with `trusted`, a client certificate is asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.pem", pki / "server.key")
    if trusted is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(trusted)
    return context


def says(answer: bytes) -> Answer:
    """Waits for the first bytes, sends `answer`, and waits for the other side to go."""

    def say(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(answer)
        sock.recv(65536)

    return say


def is_silent(sock: socket.socket) -> None:
    """Takes what comes and says nothing."""
    while sock.recv(65536):
        pass


def closes(sock: socket.socket) -> None:
    """Reads the first bytes and goes."""
    sock.recv(65536)


def drips(sock: socket.socket) -> None:
    """A byte now and then, for ever: each one in time for a deadline that begins anew with it."""
    stop = threading.Event()
    while not stop.wait(0.05):
        sock.sendall(b"\x20" if not stop.is_set() else b"")


def drips_a_connack(sock: socket.socket) -> None:
    """The same, of a long answer that would be one: until nobody can wait for it any more."""
    sock.recv(65536)
    sock.sendall(b"\x20\xff\x7f\x00\x00\xfb\x7f")
    for _ in range(80):
        time.sleep(0.05)
        sock.sendall(b"\x26")


def floods(sock: socket.socket) -> None:
    """More than anybody asked for."""
    sock.recv(65536)
    while True:
        sock.sendall(b"\x20\xff\xff\xff\x7f" + bytes(65536))


def speaks_3_1_1(sock: socket.socket) -> None:
    """A broker of 3.1.1 as the standard asks: it refuses other versions with code 1."""
    data = sock.recv(65536)
    sock.sendall(b"\x20\x02\x00\x00" if data[8:9] == b"\x04" else b"\x20\x02\x00\x01")
    sock.recv(65536)


def knows_only_3_1_1(sock: socket.socket) -> None:
    """An older one: it closes on what it does not know."""
    if sock.recv(65536)[8:9] == b"\x04":
        sock.sendall(b"\x20\x02\x00\x00")
        sock.recv(65536)
