"""A vehicle's end of HTTPS, as the tests hold it: one kept-alive connection, answers decoded; or the bare socket."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import msgspec

from tests.gate import Car, Gate

MSGPACK = "application/vnd.fleetgate.v1+msgpack"
JSON = "application/vnd.fleetgate.v1+json"
DEADLINE_SECONDS = 15.0


class Answer(NamedTuple):
    """`items` are the results of a 202, or the problem of anything else."""

    status: int
    items: Any
    headers: httpx.Headers


class HttpPeer:
    """A client with the certificate of `car`."""

    def __init__(
        self, gate: Gate, car: Car, context: ssl.SSLContext | None = None, deadline_s: float = DEADLINE_SECONDS
    ) -> None:
        self.car = car
        self._client = httpx.Client(
            base_url=f"https://localhost:{gate.https_port}",
            verify=context or car.context(),
            timeout=deadline_s,
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def request(self, method: str, path: str = "/v1/telemetry", **given: Any) -> Answer:
        answer = self._client.request(method, path, **given)
        kind = answer.headers.get("content-type", "")
        content = msgspec.msgpack.decode(answer.content) if kind == MSGPACK else msgspec.json.decode(answer.content)
        return Answer(answer.status_code, content, answer.headers)

    def post(self, content: bytes, form: str = MSGPACK, **headers: str) -> Answer:
        return self.request("POST", content=content, headers={"content-type": form} | headers)

    def batch(self, *envelopes: bytes) -> Answer:
        return self.post(msgspec.msgpack.encode(list(envelopes)))

    def ask(self, envelope: bytes, form: str = MSGPACK) -> dict[str, Any]:
        """Sends one envelope; its result."""
        answer = self.post(envelope, form)
        assert answer.status == 202, answer
        [item] = answer.items
        assert isinstance(item, dict)
        return item


class HttpsWire:
    """The same without a client library: what is sent is bytes, and when the gate closes it is seen."""

    def __init__(self, gate: Gate, car: Car, context: ssl.SSLContext | None = None, deadline_s: float = 10.0) -> None:
        plain = socket.create_connection(("127.0.0.1", gate.https_port), deadline_s)
        self.sock = (context or car.context()).wrap_socket(plain, server_hostname="localhost")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.sock.close()

    @staticmethod
    def request(envelope: bytes) -> bytes:
        head = f"POST /v1/telemetry HTTP/1.1\r\nhost: gate\r\ncontent-type: {MSGPACK}\r\n"
        return f"{head}content-length: {len(envelope)}\r\n\r\n".encode() + envelope

    def answer(self) -> tuple[bytes, dict[str, Any]]:
        """The head of the answer, and the result of its one item."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, content = data.partition(b"\r\n\r\n")
        length = int(next(line for line in head.lower().splitlines() if line.startswith(b"content-length"))[15:])
        while len(content) < length:
            content += self._more()
        [item] = msgspec.msgpack.decode(content)
        return head, item

    def _more(self) -> bytes:
        data = self.sock.recv(65_536)
        assert data, "the gate closed before it answered"
        return data

    def ask(self, envelope: bytes) -> tuple[bytes, dict[str, Any]]:
        self.sock.sendall(self.request(envelope))
        return self.answer()


def told(item: dict[str, Any]) -> tuple[str, str | None]:
    return item["status"], item["reason"]
