"""Clients that stall, flood or send noise: each ends alone, and a bystander's messages are acknowledged meanwhile."""

from __future__ import annotations

import _ssl
import ctypes
import fcntl
import itertools
import os
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import mqtt5
import msgspec
import pytest
from tests.gate import Car, Gate, NewGate
from tests.http_peer import MSGPACK, HttpsWire
from tests.mqtt_peer import DEADLINE_SECONDS, Ended, MqttPeer, publish_bytes, told

LISTENERS = ["mqtt", "https"]


def port_of(gate: Gate, listener: str) -> int:
    return gate.mqtt_port if listener == "mqtt" else gate.https_port


@contextmanager
def acknowledged_meanwhile(bystander: MqttPeer) -> Iterator[None]:
    """Sends as the bystander, one message after the other, while the block runs; every one must be acknowledged."""
    answers: list[tuple[int, str | None]] = []
    over = threading.Event()

    def send() -> None:
        for seq in itertools.count():
            answers.append(told(bystander.ask(bystander.car.sign(bystander.epoch, seq))))
            if over.wait(0.02):
                return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive(), "the bystander still waits for an acknowledgement"
    assert answers
    assert set(answers) == {(0, None)}


def wait_for_end(sock: socket.socket) -> None:
    """Reads until the gate ends the connection, one way or the other."""
    try:
        while sock.recv(65536):
            pass
    except (ConnectionError, ssl.SSLError):
        pass


def test_a_client_that_reads_no_acknowledgements_ends_alone(new_gate: NewGate) -> None:
    """The gate stops reading from it when 64 KiB wait to be sent, and ends it when its keep-alive is over. (Above its
    own limits it would be read from once a second, and take minutes.)"""
    gate = new_gate(limits={"device": {"messages": "1000000/s"}})
    car, other = gate.home.enrol("reads-nothing"), gate.home.enrol("other")
    again = car.sign(1, 0)
    flood = b"".join(publish_bytes(car.topic, again, packet_id=n + 1) for n in range(100))
    with (
        MqttPeer(gate, other).hello() as bystander,
        acknowledged_meanwhile(bystander),
        MqttPeer(gate, car, buffer=4096).hello(keep_alive=1) as peer,
    ):
        try:
            while True:
                peer.send(flood)
        except (ConnectionError, ssl.SSLError):  # at the deadline of the socket it would be a TimeoutError
            return


def key_updates(sock: ssl.SSLSocket, *, answered: bool) -> None:
    """Sends KeyUpdates of TLS 1.3 until the gate ends the connection. Python has no call for that, OpenSSL has.

    `answered`: each asks for one in return, which is not read.
    """
    openssl = ctypes.CDLL(_ssl.__file__)
    openssl.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    openssl.SSL_do_handshake.argtypes = [ctypes.c_void_p]
    behind_the_head = object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)  # of `PySSLSocket`: a weak reference
    connection = ctypes.c_void_p.from_address(id(sock._sslobj) + behind_the_head)  # type: ignore[attr-defined]
    sock.settimeout(DEADLINE_SECONDS)
    fcntl.fcntl(sock, fcntl.F_SETFL, fcntl.fcntl(sock, fcntl.F_GETFL) & ~os.O_NONBLOCK)  # OpenSSL waits by itself
    deadline_s = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline_s:
        openssl.SSL_key_update(connection, int(answered))
        if openssl.SSL_do_handshake(connection) != 1:
            return
    raise TimeoutError("the gate goes on taking them")


def test_a_flood_of_key_updates_stalls_nobody(new_gate: NewGate) -> None:
    """OpenSSL takes them inside one read, for as long as they come: the connection is cut and its car kept out."""
    gate = new_gate()
    flooding, other = gate.home.enrol("flooding"), gate.home.enrol("other")
    with MqttPeer(gate, other) as bystander, ThreadPoolExecutor() as pool:
        bystander.hello()
        with acknowledged_meanwhile(bystander), MqttPeer(gate, flooding) as one, MqttPeer(gate, flooding) as two:
            floods = [pool.submit(key_updates, peer.sock, answered=False) for peer in (one, two)]
            for flood in floods:
                flood.result()
        with pytest.raises((Ended, ConnectionError, ssl.SSLError)), MqttPeer(gate, flooding) as again:
            again.hello()
        assert told(bystander.ask(other.sign(bystander.epoch, 1_000))) == (0, None)


def test_who_stalls_the_loop_with_a_stolen_credential_keeps_its_car_in(new_gate: NewGate) -> None:
    """The credential stays out, not the car that was enrolled anew."""
    gate = new_gate()
    stolen = gate.home.enrol("victim")
    gate.home.revoke(stolen)
    renewed = gate.home.enrol("victim")
    with MqttPeer(gate, stolen) as thief:
        key_updates(thief.sock, answered=False)
    with pytest.raises((Ended, ConnectionError, ssl.SSLError)), MqttPeer(gate, stolen) as again:
        again.greet()
    with MqttPeer(gate, renewed).hello() as peer:
        assert told(peer.ask(renewed.sign(peer.epoch, 0))) == (0, None)


def test_key_updates_whose_answers_nobody_reads_end_their_connection(
    shared_gate: Gate, car: Car, bystander: MqttPeer
) -> None:
    """The gate's answers fill the socket; it does not try to write them for ever."""
    with acknowledged_meanwhile(bystander), MqttPeer(shared_gate, car, buffer=4096) as peer:
        key_updates(peer.sock, answered=True)


def test_an_https_client_that_reads_no_answers_does_not_keep_the_edge_from_draining(new_gate: NewGate) -> None:
    """Its connection ends by a deadline of its own, and SIGTERM ends the process with 0."""
    gate = new_gate(limits={"device": {"messages": "10000000/s"}})
    car = gate.home.enrol("deaf")
    batch = msgspec.msgpack.encode([b"x"] * 500)
    lines = ["POST /v1/telemetry HTTP/1.1", "Host: gate", f"Content-Type: {MSGPACK}", f"Content-Length: {len(batch)}"]
    request = "\r\n".join([*lines, "", ""]).encode() + batch
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", gate.https_port))
        plain.settimeout(1)
        with car.context().wrap_socket(plain, server_hostname="localhost") as sock:
            with pytest.raises((TimeoutError, ssl.SSLError, ConnectionError)):
                sock.sendall(request * 10_000)
            assert gate.terminate() == 0


def test_a_client_that_announces_a_body_and_sends_none_ends_alone(
    shared_gate: Gate, car: Car, bystander: MqttPeer
) -> None:
    """64 KiB are announced and never come: the keep-alive ends it."""
    with acknowledged_meanwhile(bystander), MqttPeer(shared_gate, car) as peer:
        peer.hello(keep_alive=1)
        peer.send(publish_bytes(car.topic, bytes(64 * 1024))[:100])
        assert peer.farewell().reason_code == 0x8D


@pytest.mark.parametrize("listener", LISTENERS)
def test_a_client_that_says_nothing_after_tcp_connect_ends_alone(
    shared_gate: Gate, bystander: MqttPeer, listener: str
) -> None:
    """edge.handshake_seconds is its deadline."""
    with (
        acknowledged_meanwhile(bystander),
        closing(socket.create_connection(("127.0.0.1", port_of(shared_gate, listener)), DEADLINE_SECONDS)) as sock,
    ):
        wait_for_end(sock)


def test_a_client_that_says_nothing_after_tls_ends_alone(shared_gate: Gate, car: Car, bystander: MqttPeer) -> None:
    """The deadline reaches to CONNECT."""
    with acknowledged_meanwhile(bystander), MqttPeer(shared_gate, car) as peer:
        wait_for_end(peer.sock)


@pytest.mark.parametrize("listener", LISTENERS)
def test_noise_in_place_of_tls_ends_only_its_connection(shared_gate: Gate, bystander: MqttPeer, listener: str) -> None:
    """40 connections of random bytes, some of which begin like a TLS record."""
    noise = random.Random(f"before tls, {listener}")
    with acknowledged_meanwhile(bystander):
        for number in range(40):
            start = b"\x16\x03\x01" if number % 2 else b""
            with closing(socket.create_connection(("127.0.0.1", port_of(shared_gate, listener)), 5)) as sock:
                try:
                    sock.sendall(start + noise.randbytes(noise.randrange(1, 3000)))
                    sock.shutdown(socket.SHUT_WR)
                except OSError:  # the gate was faster
                    continue
                wait_for_end(sock)


def _after_connect(noise: random.Random) -> bytes:
    return mqtt5.ConnectPacket("", clean_start=True).write() + noise.randbytes(noise.randrange(1, 500))


def _mutated(packet: bytes, noise: random.Random) -> bytes:
    changed = bytearray(packet)
    for _ in range(noise.randrange(1, 6)):
        changed[noise.randrange(len(changed))] = noise.randrange(256)
    return bytes(changed)


_CONNECT = mqtt5.ConnectPacket("car", clean_start=True, username="user", user_properties=[("name", "value")]).write()
_POST = b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Type: x\r\nContent-Length: 4\r\n\r\nabcd"
NOISES: dict[str, tuple[str, Callable[[random.Random], bytes]]] = {
    "noise-mqtt": ("mqtt", lambda noise: noise.randbytes(noise.randrange(1, 2000))),
    "noise-after-connect": ("mqtt", _after_connect),
    "connect-mutated": ("mqtt", lambda noise: _mutated(_CONNECT, noise)),
    "publish-mutated": (
        "mqtt",
        lambda noise: mqtt5.ConnectPacket("").write() + _mutated(publish_bytes("fleet/v1/a/b", bytes(50)), noise),
    ),
    "noise-https": ("https", lambda noise: noise.randbytes(noise.randrange(1, 2000))),
    "post-mutated": ("https", lambda noise: _mutated(_POST, noise)),
}


@pytest.mark.parametrize("kind", NOISES)
def test_noise_inside_tls_ends_only_its_connection(shared_gate: Gate, car: Car, bystander: MqttPeer, kind: str) -> None:
    """40 connections of one authenticated car that sends random or damaged bytes; nobody else notices."""
    listener, make = NOISES[kind]
    noise = random.Random(kind)
    context = car.context()
    with acknowledged_meanwhile(bystander):
        for _ in range(40):
            plain = socket.create_connection(("127.0.0.1", port_of(shared_gate, listener)), 5)
            with context.wrap_socket(plain, server_hostname="localhost") as sock:
                sock.sendall(make(noise))
                sock.settimeout(0.02)  # a session that noise did not end is left by us
                try:
                    wait_for_end(sock)
                except TimeoutError:
                    continue


H2_UPGRADE = (
    b"OPTIONS * HTTP/1.1\r\nHost: gate\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)


@pytest.mark.parametrize("begin", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", H2_UPGRADE], ids=["preface", "h2c"])
def test_nobody_is_spoken_http_2_with(shared_gate: Gate, car: Car, begin: bytes) -> None:
    """It is not offered, and who begins with it gets an answer of HTTP/1.1: no route."""
    with HttpsWire(shared_gate, car) as wire:
        wire.sock.sendall(begin)
        assert wire.sock.recv(12) == b"HTTP/1.1 404"
