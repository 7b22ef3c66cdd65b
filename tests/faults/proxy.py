"""What stands between load and ClickHouse in the fault suite: an HTTP proxy that can refuse, hang, lie and break off.

`behaviour` decides what becomes of each request: it may `forward` it or not, and give an answer or None, which cuts the
connection without one. `struck` counts what did not go through as it came, so that a fault can be sure that it
happened.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

UPSTREAM_SECONDS = 60.0
_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "host", "content-length", "keep-alive"})


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def statement(self) -> str:
        """The beginning of the statement: the parameter `query`, followed by the body."""
        query = dict(parse_qsl(urlsplit(self.path).query)).get("query", "")
        return (query + "\n" + self.body[:300].decode(errors="replace")).strip()

    @property
    def insert(self) -> str:
        """The table that it inserts into; empty when it does not insert."""
        words = self.statement.replace("`", "").split(maxsplit=3)
        return words[2].partition("(")[0].rpartition(".")[2] if words[:2] == ["INSERT", "INTO"] else ""


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


Forward = Callable[[], Reply]
Behaviour = Callable[[Request, Forward], Reply | None]


def passing(_request: Request, forward: Forward) -> Reply | None:
    return forward()


class Proxy:
    """Listens on a port of its own and forwards to `upstream` (host, port)."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.upstream = upstream
        self.behaviour: Behaviour = passing
        self.struck = 0
        self.healed = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listen(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def strike(self) -> None:
        with self._lock:
            self.struck += 1

    def heal(self) -> None:
        """Everything passes again; what hangs is cut."""
        self.behaviour = passing
        self.healed.set()
        self.healed = threading.Event()

    def refuse(self) -> None:
        """Nobody listens any more, and every open connection is gone."""
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with_reset(connection)

    def listen_again(self) -> None:
        self._listen(self._port)

    def close(self) -> None:
        self.heal()
        self.refuse()

    def _listen(self, port: int) -> None:
        self._server = _Server(self, port)
        self._port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)


def with_reset(connection: socket.socket) -> None:
    """Ends a connection as a crash would, for both sides at once."""
    with contextlib.suppress(OSError):  # it has gone already
        connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, proxy: Proxy, port: int) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is what this is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.proxy.opened(self.connection)

    def finish(self) -> None:
        try:
            super().finish()
        finally:
            self.server.proxy.closed(self.connection)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Nothing."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        request = Request(self.command, self.path, dict(self.headers.items()), self._body())
        try:
            reply = self.server.proxy.behaviour(request, lambda: self._forward(request))
        except (OSError, http.client.HTTPException):
            reply = None  # the server itself is away
        if reply is None:
            self.close_connection = True
            with_reset(self.connection)
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, request: Request) -> Reply:
        upstream = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=UPSTREAM_SECONDS)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
            upstream.request(request.method, request.path, body=request.body, headers=headers)
            answer = upstream.getresponse()
            return Reply(answer.status, answer.read(), dict(answer.getheaders()))
        finally:
            upstream.close()
