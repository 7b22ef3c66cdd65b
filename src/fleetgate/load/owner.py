"""The HTTP interface of an embedded ClickHouse: what a server has on port 8123, as far as its clients need it.

chdb lets one process own a directory; everybody else reads through here with an ordinary client. Decides who may do
what: the access token reads, a writer's token (given only by tests and fault suites) does everything. Listens on
loopback only. What a reader's statement may contain is decided in statement.py, the rest by ClickHouse.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import re
import socket
import threading
import time
import uuid
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import lz4.frame  # type: ignore[import-untyped]

from fleetgate.config import host_and_port
from fleetgate.errors import ConfigError
from fleetgate.load.answer import Answer, Failed, answer
from fleetgate.load.embedded import EmbeddedClickHouse

MAX_REQUEST_BYTES = 64 * 1024 * 1024
MAX_CONNECTIONS = 32
IDLE_SECONDS = 60
WAIT_FOR_TURN_SECONDS = 30
CLOSE_SECONDS = 5.0
MAX_RUNNING = 4
"""Statements that run at once; others wait, and are told 503 when the wait is over."""

_CHUNK_BYTES = re.compile(rb"[0-9A-Fa-f]{1,16}")
"""int() would take a sign too, and -1 bytes are all that ever come."""


class Owner:
    """The listener; serves from its own threads until `close`."""

    def __init__(self, engine: EmbeddedClickHouse, listen: str, token: str, writer_token: str | None = None) -> None:
        """`listen` is HOST:PORT on loopback, port 0 for any. Raises ConfigError when it cannot be used."""
        host, port = host_and_port("clickhouse.listen", listen)
        if not _is_loopback(host):
            raise ConfigError(
                f"clickhouse.listen: {listen} is not loopback: others would read everything with one token"
            )
        if not token:
            raise ConfigError("the ClickHouse access token is empty: remove its file, a new one is made at start")
        try:
            self._server = _Server((host, port), engine, token, writer_token)
        except OSError as error:
            raise ConfigError(f"clickhouse.listen: cannot listen on {listen}: {error.strerror}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="owner", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"

    def close(self) -> None:
        """Answers what is running, within a few seconds, and nothing after that."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        deadline = time.monotonic() + CLOSE_SECONDS
        for _ in range(MAX_RUNNING):  # whoever holds all turns lets nobody else at the engine
            self._server.turns.acquire(timeout=max(0.0, deadline - time.monotonic()))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(
        self, address: tuple[str, int], engine: EmbeddedClickHouse, token: str, writer_token: str | None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.engine = engine
        self.token = token.encode()
        self.writer_token = writer_token.encode() if writer_token else None
        self.turns = threading.BoundedSemaphore(MAX_RUNNING)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)  # the client sees a closed connection and comes back
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is the client's affair; whatever ClickHouse said was answered before."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "fleetgate"
    sys_version = ""
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    server: _Server
    OPEN: ClassVar = {"/ping": b"Ok.\n", "/replicas_status": b"Ok.\n"}

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the base class's name
        """Nothing: a URL may hold a statement, and statements are the reader's business."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in self.OPEN:
            self._answer(200, self.OPEN[path], {})
        else:
            self._serve(has_body=False)

    def do_POST(self) -> None:
        self._serve(has_body=True)

    def _serve(self, has_body: bool) -> None:
        try:
            writer = self._authenticate()
            body, headers = self._run(self._body() if has_body else b"", writer)
        except Failed as error:
            self.close_connection = True  # the body may not have been read
            self._fail(error)
        else:
            self._answer(200, body, headers)

    def _run(self, body: bytes, writer: bool) -> Answer:
        # As a server does it: the statement is the parameter `query` followed by the body.
        parameters = self._parameters()
        sql = parameters.get("query", "").encode()
        request = sql + (b"\n" if sql and body else b"") + body
        if not self.server.turns.acquire(timeout=WAIT_FOR_TURN_SECONDS):
            raise Failed(202, "Code: 202. DB::Exception: All turns are taken. (TOO_MANY_SIMULTANEOUS_QUERIES)")
        try:
            return answer(self.server.engine, request, parameters, writer)
        finally:
            self.server.turns.release()

    def _parameters(self) -> dict[str, str]:
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        for header, name in (("X-ClickHouse-Database", "database"), ("X-ClickHouse-Format", "default_format")):
            if header in self.headers:
                parameters.setdefault(name, self.headers[header])
        return parameters

    def _authenticate(self) -> bool:
        """True for the writer, False for a reader. Raises Failed for everybody else."""
        given = self.headers.get("X-ClickHouse-Key", "").encode()
        scheme, _, credentials = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given = credentials.encode()
        elif scheme.lower() == "basic":
            try:
                given = base64.b64decode(credentials, validate=True).partition(b":")[2]
            except binascii.Error:
                given = b""
        if self.server.writer_token is not None and hmac.compare_digest(given, self.server.writer_token):
            return True
        if hmac.compare_digest(given, self.server.token):
            return False
        raise Failed(
            516, "Code: 516. DB::Exception: Authentication failed: the access token is wrong. (AUTHENTICATION_FAILED)"
        )

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            data = self._chunks()
        else:
            length = self.headers.get("Content-Length", "")
            if not length.isdigit():
                raise Failed(381, "Code: 381. DB::Exception: Content-Length is required. (HTTP_LENGTH_REQUIRED)", 411)
            if int(length) > MAX_REQUEST_BYTES:
                raise _too_large()
            data = self.rfile.read(int(length))
        return _decompressed(data, self.headers.get("Content-Encoding", "identity").lower())

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        total = 0
        while True:
            length = self.rfile.readline(64).partition(b";")[0].strip()
            if not _CHUNK_BYTES.fullmatch(length):
                raise Failed(33, "Code: 33. DB::Exception: a chunk has no length. (CANNOT_READ_ALL_DATA)", 400)
            size = int(length, 16)
            total += size
            if total > MAX_REQUEST_BYTES:
                raise _too_large()
            part = self.rfile.read(size)
            if len(part) < size:
                raise Failed(33, "Code: 33. DB::Exception: the body was cut off. (CANNOT_READ_ALL_DATA)", 400)
            self.rfile.readline(64)
            if size == 0:
                return b"".join(parts)
            parts.append(part)

    def _fail(self, error: Failed) -> None:
        self._answer(error.status, f"{error}\n".encode(), {"X-ClickHouse-Exception-Code": str(error.code)})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/octet-stream" if status == 200 else "text/plain; charset=UTF-8")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("X-ClickHouse-Query-Id", str(uuid.uuid4()))
        self.send_header("X-ClickHouse-Server-Display-Name", "fleetgate")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _too_large() -> Failed:
    return Failed(307, f"Code: 307. DB::Exception: more than {MAX_REQUEST_BYTES} bytes. (TOO_MANY_BYTES)", 413)


def _decompressed(data: bytes, encoding: str) -> bytes:
    """Raises Failed for an encoding that is not known, broken, or opens to more than the limit."""
    if encoding == "identity":
        return data
    openers = {"lz4": lz4.frame.LZ4FrameDecompressor, "gzip": lambda: zlib.decompressobj(zlib.MAX_WBITS | 16)}
    if encoding not in openers:
        raise Failed(1, f"Code: 1. DB::Exception: Content-Encoding {encoding} is not taken. (UNSUPPORTED_METHOD)", 415)
    opened = b""
    try:
        while data:  # a stream may be several frames, one behind the other
            opener = openers[encoding]()
            opened += opener.decompress(data, MAX_REQUEST_BYTES + 1 - len(opened))
            if len(opened) > MAX_REQUEST_BYTES:
                raise _too_large()
            if not opener.eof:
                raise EOFError
            data = opener.unused_data
    except (zlib.error, RuntimeError, EOFError):
        raise Failed(271, "Code: 271. DB::Exception: the body does not decompress. (CANNOT_DECOMPRESS)", 400) from None
    return opened


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
