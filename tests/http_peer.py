"""A vehicle's end of HTTPS, as the tests hold it: one kept-alive connection, answers decoded."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, NamedTuple, Self

import httpx
import msgspec

from tests.gate import Car, Door

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
        self, gate: Door, car: Car, context: ssl.SSLContext | None = None, deadline_s: float = DEADLINE_SECONDS
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


def told(item: dict[str, Any]) -> tuple[str, str | None]:
    return item["status"], item["reason"]
