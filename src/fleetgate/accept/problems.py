"""Answers of the HTTPS listener, and how a whole request is refused: an RFC 9457 problem, ahead of its unread body.

Decides what becomes of the body. Nobody would read it any more, but it must be taken off the connection: Hypercorn
hands it on through a bounded queue and ends the request through the same one, so an unread body would hold the
connection for ever; and a client that is still writing when its connection is reset loses the answer. Which request is
refused is decided by `http`.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any

import msgspec
import trio

LINGER_SECONDS = 2.0  # time for the client to read the answer and stop sending, as the MQTT listener gives it

Scope = Any  # ASGI's own types are unions of everything it can be; here it is always an HTTP request
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

_ENDS_THE_CONNECTION = frozenset(
    {HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_TIMEOUT}
)


class Problem(Exception):
    """Answers the whole request; nothing of it was judged. `retry_after_s` becomes the header Retry-After."""

    def __init__(self, status: HTTPStatus, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


def answer_start(
    status: HTTPStatus, form: str, content: bytes, headers: Iterable[tuple[bytes, bytes]] = ()
) -> dict[str, Any]:
    """The ASGI message that begins an answer of this content."""
    length = str(len(content)).encode()
    fixed = [(b"content-type", form.encode()), (b"content-length", length)]
    return {"type": "http.response.start", "status": status.value, "headers": [*fixed, *headers]}


def answer_body(content: bytes, *, more: bool = False) -> dict[str, Any]:
    """The ASGI message with the content, which ends the answer unless there is `more`."""
    return {"type": "http.response.body", "body": content, "more_body": more}


async def send_problem(receive: Receive, send: Send, problem: Problem, *, shared: bool = False) -> int:
    """Sends the whole answer, discards what still comes of the request for at most 2 s, then ends the request. How many
    bytes of its body that were.

    Whoever is forbidden loses the connection, unless it is `shared` with others.
    """
    status = problem.status
    content = msgspec.json.encode(
        {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": problem.detail}
    )
    headers = []
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append((b"allow", b"POST"))
    if problem.retry_after_s is not None:
        headers.append((b"retry-after", str(math.ceil(problem.retry_after_s)).encode()))
    if status in _ENDS_THE_CONNECTION or (status is HTTPStatus.FORBIDDEN and not shared):
        headers.append((b"connection", b"close"))
    discarded: list[int] = []
    async with trio.open_nursery() as nursery:
        whole = trio.Event()
        nursery.start_soon(_discard, receive, whole, discarded)
        await send(answer_start(status, "application/problem+json", content, headers))
        await send(answer_body(content, more=True))
        with trio.move_on_after(LINGER_SECONDS):
            await whole.wait()
        await send(answer_body(b""))
        nursery.cancel_scope.cancel()
    return sum(discarded)


async def _discard(receive: Receive, whole: trio.Event, discarded: list[int]) -> None:
    """Takes the request's messages until it is over, and notes their sizes; sets `whole` at its end or when the client
    has gone."""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            whole.set()
            return
        discarded.append(len(message.get("body", b"")))
        if not message.get("more_body", False):
            whole.set()
