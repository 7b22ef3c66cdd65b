"""PROXY protocol on the real listeners: from whom the header is taken, and whose address stands in the spool."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time

import pytest
from tests.gate import Car, Gate
from tests.integration.proxy.stage import DIRECT, PASSES, addresses
from tests.mqtt_peer import MqttPeer, told
from tests.proxy_peer import LOCAL, HttpsHop, proxy_header

CLIENT = "203.0.113.7:40000"
NAMED = proxy_header("203.0.113.7", 40_000)
V1 = b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 8883\r\n"


def client_hello(car: Car) -> bytes:
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        car.context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def answer(port: int, source: str, sent: bytes) -> bytes:
    """All that a listener says to these bytes until it closes the connection."""
    told = b""
    with socket.create_connection(("127.0.0.1", port), 10, (source, 0)) as plain, contextlib.suppress(ConnectionError):
        plain.sendall(sent)
        while data := plain.recv(65_536):
            told += data
    return told


@pytest.fixture(params=["mqtt", "https"])
def port(request: pytest.FixtureRequest, edge: Gate) -> int:
    """Of each listener."""
    return edge.mqtt_port if request.param == "mqtt" else edge.https_port


def test_mqtt_takes_the_address_from_the_header(edge: Gate, car: Car) -> None:
    """The session is an ordinary one, and the client's address is on its messages."""
    with MqttPeer(edge, car, source=PASSES, before_tls=NAMED) as peer:
        assert told(peer.hello().ask(car.sign(1, 0))) == (0, None)
    assert addresses(edge, car) == {CLIENT}


def test_https_takes_the_address_from_the_header(edge: Gate, car: Car) -> None:
    """The same for every request of the connection."""
    with HttpsHop(edge, car.context(), PASSES, NAMED) as hop:
        assert [hop.post(car.sign(1, seq)) for seq in range(2)] == [(202, [None])] * 2
    assert addresses(edge, car) == {CLIENT}


def test_an_ipv6_client_keeps_its_address(edge: Gate, car: Car) -> None:
    """Behind a proxy that itself speaks IPv4 to the edge."""
    with MqttPeer(edge, car, source=PASSES, before_tls=proxy_header("2001:db8::7", 40_000)) as peer:
        peer.hello().ask(car.sign(1, 0))
    assert addresses(edge, car) == {"2001:db8::7:40000"}


def test_a_local_connection_is_the_proxys_own(edge: Gate, car: Car) -> None:
    """The command LOCAL names nobody: the address is that of the TCP connection."""
    with MqttPeer(edge, car, source=PASSES, before_tls=LOCAL) as peer:
        port = peer.sock.getsockname()[1]
        peer.hello().ask(car.sign(1, 0))
    assert addresses(edge, car) == {f"{PASSES}:{port}"}


def test_a_header_in_pieces_costs_no_byte_of_tls(edge: Gate, car: Car) -> None:
    """Byte by byte, and the last one in one packet with the ClientHello: the handshake succeeds."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = car.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", edge.mqtt_port), 10, (PASSES, 0)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in NAMED[:-1]:
            plain.sendall(bytes((byte,)))
            time.sleep(0.001)  # so that the edge reads pieces, whatever pieces: the outcome is the same
        rest = NAMED[-1:]
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(rest + outgoing.read())
                rest = b""
                incoming.write(plain.recv(65_536))
        assert tls.version() == "TLSv1.3"


@pytest.mark.parametrize("first", [b"", V1, b"GET / HTTP/1.1\r\n\r\n"], ids=["no header", "version 1", "HTTP"])
def test_a_listed_peer_without_a_header_is_refused(edge: Gate, car: Car, port: int, first: bytes) -> None:
    """Before TLS: else whoever reaches the edge past the proxy's header would have no address."""
    assert answer(port, PASSES, first + client_hello(car)) == b""
    assert "no PROXY protocol header of version 2" in edge.log()


def test_a_header_from_an_unlisted_peer_is_no_tls(car: Car, port: int) -> None:
    """Nobody names an address but those who are listed: an alert at most, never a handshake."""
    assert answer(port, DIRECT, NAMED + client_hello(car))[:1] in (b"", b"\x15")


def test_an_unlisted_peer_needs_no_header(edge: Gate, car: Car) -> None:
    """Vehicles that come directly are served beside those that come through the proxy."""
    with MqttPeer(edge, car, source=DIRECT) as peer:
        assert told(peer.hello().ask(car.sign(1, 0))) == (0, None)
    with HttpsHop(edge, car.context(), DIRECT) as hop:
        assert hop.post(car.sign(1, 1)) == (202, [None])


def test_peers_that_stop_in_their_header_are_closed_in_time(edge: Gate) -> None:
    """`edge.handshake_seconds` (2 here) count from the accept, header and handshake together."""
    with contextlib.ExitStack() as stack:
        opened = []
        for port in (edge.mqtt_port, edge.https_port):
            for sent in (b"", NAMED[:5], NAMED[:20], NAMED):
                plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10, (PASSES, 0)))
                plain.sendall(sent)
                opened.append(plain)
        assert [plain.recv(1) for plain in opened] == [b""] * len(opened)
