"""One POST to a server that somebody else runs, in bounded time and memory, and only where it may go.

The name is resolved once, every address that comes back is checked, and the connection is made to one of those: a name
that means another address a moment later (DNS rebinding) is never asked again. TLS still checks the name. Nothing is
followed elsewhere, no proxy of the environment is used, and of the answer only its head is read. Which addresses may be
reached is decided by `load.addresses`; what an answer means, by `load.webhooks`.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

from fleetgate.load.addresses import first_not_public

POST_SECONDS: Final = 10.0
"""For all of it but the look-up of the name, which the system's resolver bounds (some 10 to 30 s)."""

_HEAD_BYTES: Final = 16 * 1024
_READ_BYTES: Final = 4 * 1024
_ERROR_CHARS: Final = 200  # h11 quotes what it was sent

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host name. Raises OSError."""


class PostFailed(Exception):
    """There was no answer; the text says why, and never quotes the URL, whose path may be a secret of the receiver."""


def resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Poster:
    """`allow_private` lifts the check of addresses. `tls` is for https: by default the CAs of the system."""

    def __init__(
        self, url: str, allow_private: bool, resolver: Resolve = resolve, tls: ssl.SSLContext | None = None
    ) -> None:
        self._url = urlsplit(url)
        self._allow_private = allow_private
        self._resolve = resolver
        self._tls = (tls or ssl.create_default_context()) if self._url.scheme == "https" else None

    @property
    def host(self) -> str:
        return self._url.hostname or ""

    def post(self, body: bytes, headers: Mapping[str, str]) -> int:
        """The status of the answer. Raises PostFailed."""
        try:
            addresses = self._checked()
            deadline_s = time.monotonic() + POST_SECONDS
            with ExitStack() as opened:
                plain = opened.enter_context(self._connected(addresses, deadline_s))
                sock = plain
                if self._tls is not None:
                    plain.settimeout(_left(deadline_s))
                    sock = opened.enter_context(self._tls.wrap_socket(plain, server_hostname=self.host))
                http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
                sock.settimeout(_left(deadline_s))
                sock.sendall(_request(http, self._url, body, headers))
                return _status(http, sock, deadline_s)
        except (OSError, ValueError, h11.ProtocolError) as error:
            raise PostFailed(str(error)[:_ERROR_CHARS] or type(error).__name__) from None

    def _checked(self) -> Sequence[str]:
        addresses = self._resolve(self.host, self._port())
        if not addresses:
            raise PostFailed("its name has no address")
        refused = None if self._allow_private else first_not_public(addresses)
        if refused is not None:
            raise PostFailed(f"its name leads to {refused}, which is no public address: allow_private would let it")
        return addresses

    def _port(self) -> int:
        return self._url.port or (443 if self._url.scheme == "https" else 80)

    def _connected(self, addresses: Sequence[str], deadline_s: float) -> socket.socket:
        """To the first address that takes it. The addresses are numbers by now: nothing is looked up again."""
        error: OSError | None = None
        for address in addresses:
            try:
                return socket.create_connection((address, self._port()), _left(deadline_s))
            except OSError as failed:
                error = failed
        raise error or OSError("no address takes a connection")


def _left(deadline_s: float) -> float:
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise PostFailed(f"it did not answer within {POST_SECONDS:.0f} s")
    return left_s


def _request(http: h11.Connection, url: SplitResult, body: bytes, headers: Mapping[str, str]) -> bytes:
    target = f"{url.path or '/'}{'?' if url.query else ''}{url.query}"
    own = {"Host": url.netloc, "Content-Length": str(len(body)), "Connection": "close"}
    parts = [
        http.send(h11.Request(method="POST", target=target, headers=list({**own, **headers}.items()))),
        http.send(h11.Data(data=body)),
        http.send(h11.EndOfMessage()),
    ]
    return b"".join(part or b"" for part in parts)


def _status(http: h11.Connection, sock: socket.socket, deadline_s: float) -> int:
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            sock.settimeout(_left(deadline_s))
            http.receive_data(sock.recv(_READ_BYTES))
        elif isinstance(event, h11.Response):
            return event.status_code
        elif isinstance(event, h11.ConnectionClosed):
            raise PostFailed("it closed the connection without an answer")
