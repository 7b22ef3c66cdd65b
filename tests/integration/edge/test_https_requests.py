"""Requests over HTTPS: forms that are taken, forms that are refused, and whose connection a request came on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import httpx
import msgspec
import pytest
from tests.gate import Car, Gate, until
from tests.http_peer import JSON, MSGPACK, HttpPeer, told

ACCEPTED = ("accepted", None)


def test_one_msgpack_envelope_gets_one_result(client: HttpPeer, car: Car) -> None:
    """An array of one, in the request's type."""
    answer = client.post(car.sign(3, 17))
    expected = [{"epoch": 3, "seq": 17, "status": "accepted", "reason": None}]
    assert (answer.status, answer.headers["content-type"], answer.items) == (202, MSGPACK, expected)


def test_one_json_envelope_gets_one_result(client: HttpPeer, car: Car) -> None:
    """An array of one, in the request's type."""
    answer = client.post(car.sign_json(3, 17), JSON)
    expected = [{"epoch": 3, "seq": 17, "status": "accepted", "reason": None}]
    assert (answer.status, answer.headers["content-type"], answer.items) == (202, JSON, expected)


def test_parameters_of_the_content_type_are_no_other_type(client: HttpPeer, car: Car) -> None:
    """Many HTTP libraries add a charset to what they think is text."""
    answer = client.post(car.sign_json(4, 0), f"{JSON}; charset=utf-8")
    assert (answer.status, [told(item) for item in answer.items]) == (202, [ACCEPTED])


@pytest.mark.parametrize("form", [MSGPACK, JSON])
def test_one_bad_item_costs_only_itself(client: HttpPeer, car: Car, form: str) -> None:
    """Results stand in the order of the items; where nothing could be decoded epoch and seq are null."""
    if form == MSGPACK:
        answer = client.batch(car.sign(1, 0), b"junk", car.sign(1, 1))
    else:
        answer = client.post(b"[" + car.sign_json(1, 0) + b',{"v":1},' + car.sign_json(1, 1) + b"]", JSON)
    assert [told(item) for item in answer.items] == [ACCEPTED, ("rejected", "malformed_envelope"), ACCEPTED]
    assert (answer.items[1]["epoch"], answer.items[1]["seq"]) == (None, None)


def test_a_padded_envelope_is_malformed_and_the_messages_behind_it_stay_readable(
    shared_gate: Gate, client: HttpPeer, car: Car, other_car: Car
) -> None:
    """White space up to the request's limit: what is accepted must fit a record, or it hides everybody's behind it."""
    raw = car.sign_json(1, 0)
    answer = client.post(raw + b" " * (1024 * 1024 - len(raw)), JSON)
    assert [told(item) for item in answer.items] == [("rejected", "malformed_envelope")]
    behind = other_car.sign(1, 0)
    with HttpPeer(shared_gate, other_car) as other:  # so much at once has emptied its own bucket
        assert [told(item) for item in other.batch(behind).items] == [ACCEPTED]
    assert [message.raw for message in shared_gate.stored(other_car)] == [behind]


def test_a_full_batch_is_stored_whole_and_once(shared_gate: Gate, client: HttpPeer, car: Car) -> None:
    """500 envelopes, then the same request again: 500 duplicates."""
    batch = [car.sign(1, seq) for seq in range(500)]
    statuses = [{item["status"] for item in client.batch(*batch).items} for _ in range(2)]
    assert statuses == [{"accepted"}, {"duplicate"}]
    assert [message.raw for message in shared_gate.stored(car)] == batch


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/v1/telemetry", 405),
    ("PUT", "/v1/telemetry", 405),
    ("POST", "/v1/else", 404),
    ("GET", "/", 404),
])  # fmt: skip
def test_another_method_or_path_is_a_problem(client: HttpPeer, method: str, path: str, status: int) -> None:
    """RFC 9457, with the way to go in it."""
    answer = client.request(method, path)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert "/v1/telemetry" in answer.items["detail"]


@pytest.mark.parametrize("form", ["text/plain", "application/json", ""])
def test_another_content_type_is_415(client: HttpPeer, car: Car, form: str) -> None:
    """Only the two types of this version."""
    assert client.post(car.sign(1, 0), form).status == 415


def test_a_large_body_that_nobody_reads_does_not_hold_its_connection(client: HttpPeer) -> None:
    """The answer comes, and so does that to the next request."""
    assert [client.post(bytes(1_000_000), "text/plain").status for _ in range(3)] == [415] * 3


def test_a_compressed_body_is_415(client: HttpPeer, car: Car) -> None:
    """Nothing is unpacked before its size is known."""
    assert client.post(car.sign(1, 0), MSGPACK, **{"content-encoding": "gzip"}).status == 415


@pytest.mark.parametrize(("head", "status"), [
    ("", 411),
    ("Transfer-Encoding: chunked\r\n", 400),
    ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", 400),
    ("Content-Length: 4\r\nContent-Length: 5\r\n", 400),
    ("Content-Length: four\r\n", 400),
    ("Content-Length: 99999999999999\r\n", 413),
])  # fmt: skip
def test_a_length_that_cannot_be_relied_on_is_refused(shared_gate: Gate, car: Car, head: str, status: int) -> None:
    """Content-Length is required, one, and a number; Transfer-Encoding is refused."""
    request = (
        f"POST /v1/telemetry HTTP/1.1\r\nHost: gate\r\nContent-Type: {MSGPACK}\r\n{head}\r\n4\r\nabcd\r\n0\r\n\r\n"
    )
    plain = socket.create_connection(("127.0.0.1", shared_gate.https_port), 10)
    with car.context().wrap_socket(plain, server_hostname="localhost") as sock:
        sock.sendall(request.encode())
        assert sock.recv(12) == f"HTTP/1.1 {status}".encode()


@pytest.mark.parametrize(("content", "form"), [
    (b"\x90", MSGPACK), (b"[]", JSON),
])  # fmt: skip
def test_an_empty_batch_has_no_results(client: HttpPeer, content: bytes, form: str) -> None:
    """202 with an empty array."""
    answer = client.post(content, form)
    assert (answer.status, answer.items) == (202, [])


@pytest.mark.parametrize("form", [MSGPACK, JSON])
@pytest.mark.parametrize("content", [b"", b"\x98", b"\xdd\xff\xff\xff\xff\xc4", b"[" * 5000, b"{", b"\xff\xfe"])
def test_what_is_no_envelope_is_one_malformed_item(client: HttpPeer, content: bytes, form: str) -> None:
    """202 with one rejected item, whatever the bytes."""
    answer = client.post(content, form)
    assert (answer.status, [told(item) for item in answer.items]) == (202, [("rejected", "malformed_envelope")])


@pytest.fixture
def pair(shared_gate: Gate, car: Car, other_car: Car) -> Iterator[list[HttpPeer]]:
    """Two connections with different certificates."""
    with HttpPeer(shared_gate, car) as first, HttpPeer(shared_gate, other_car) as second:
        yield [first, second]


def test_two_certificates_on_two_connections_never_mix(shared_gate: Gate, pair: list[HttpPeer]) -> None:
    """150 requests on each of two kept-alive connections at once: every message is stored under its own device."""
    statuses: list[str] = []

    def send(peer: HttpPeer) -> None:
        statuses.extend(peer.ask(peer.car.sign(1, seq))["status"] for seq in range(150))

    threads = [threading.Thread(target=send, args=(peer,)) for peer in pair]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == ["accepted"] * 300
    for peer in pair:
        assert [message.raw for message in shared_gate.stored(peer.car)] == sorted(
            (message.raw for message in shared_gate.stored(peer.car)), key=lambda raw: msgspec.msgpack.decode(raw)[3]
        )
        assert len(shared_gate.stored(peer.car)) == 150


def test_a_kept_alive_connection_of_a_revoked_device_learns_it(shared_gate: Gate, client: HttpPeer, car: Car) -> None:
    """The identity is the connection's, the permission is looked at for each request. Where the connection had none in
    hand when the edge heard of it, it ends, and the next one is told."""
    assert told(client.ask(car.sign(1, 0))) == ACCEPTED
    shared_gate.home.revoke(car)

    def refused() -> bool:
        with suppress(httpx.RemoteProtocolError):
            return told(client.ask(car.sign(1, 1))) == ("rejected", "revoked")
        return False

    until(refused, "the revocation holds", 2)
