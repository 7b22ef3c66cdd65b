"""A proxy's end of its connections to the gate, as the tests hold it: PROXY headers, and HTTPS with headers as written.

It says what a test wants said, also what no proxy should.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import struct
from collections.abc import Iterable
from ipaddress import ip_address
from types import TracebackType
from typing import Self

import msgspec

from tests.gate import Door
from tests.http_peer import DEADLINE_SECONDS, MSGPACK

REFUSED = (ssl.SSLError, ConnectionError, http.client.HTTPException)
"""What a peer meets that the gate does not talk to: an alert, a reset, or the end where an answer was due."""

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\0\0\0"


def client_cert(certificate: bytes) -> tuple[str, str]:
    """The header Client-Cert with a certificate in DER."""
    return "Client-Cert", f":{base64.b64encode(certificate).decode()}:"


def proxy_header(host: str, port: int) -> bytes:
    """A PROXY protocol v2 header that names this client."""
    source = ip_address(host)
    target = ip_address("127.0.0.1" if source.version == 4 else "::1")
    content = source.packed + target.packed + struct.pack(">HH", port, 443)
    return SIGNATURE + struct.pack(">BBH", 0x21, 0x11 if source.version == 4 else 0x21, len(content)) + content


class HttpsHop(http.client.HTTPSConnection):
    """A kept-alive HTTPS connection from `source` to the gate. `before_tls` goes ahead of the handshake."""

    def __init__(self, gate: Door, context: ssl.SSLContext, source: str, before_tls: bytes = b"") -> None:
        super().__init__("localhost", gate.https_port, timeout=DEADLINE_SECONDS, context=context)
        self._tls = context
        self._source = source
        self._before_tls = before_tls
        self.auto_open = 0  # a request on a connection that the gate has ended is an error, not a new connection
        self.connect()

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), DEADLINE_SECONDS, (self._source, 0))
        try:
            plain.sendall(self._before_tls)
            self.sock = self._tls.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def post(
        self, content: bytes, *headers: tuple[str, str], form: str = MSGPACK
    ) -> tuple[int, list[str | None] | str]:
        """Status, and the reasons of the results (None where a message was taken) or the problem's detail."""
        sent = [("Host", "gate"), ("Content-Type", form), ("Content-Length", str(len(content))), *headers]
        return self.ask("POST", "/v1/telemetry", sent, content)

    def ask(
        self, method: str, path: str, headers: Iterable[tuple[str, str]], content: bytes = b""
    ) -> tuple[int, list[str | None] | str]:
        self.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            self.putheader(name, value)
        self.endheaders(content)
        answer = self.getresponse()
        told = answer.read()
        if answer.status == 202:
            return 202, [item["reason"] for item in msgspec.msgpack.decode(told)]
        return answer.status, msgspec.json.decode(told)["detail"]
