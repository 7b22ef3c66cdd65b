"""Servers that webhooks are told at: real sockets on loopback, which answer whatever the test wants."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
Answer = Callable[[socket.socket], None]


def saying(*answers: bytes) -> Answer:
    """One after the other, the last for good."""
    left = list(answers)

    def answer(connection: socket.socket) -> None:
        connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    return answer


@dataclass
class Receiver:
    """`requests` are headers (lower case) and body of each whole request; `connections` counts those taken."""

    port: int
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    connections: int = 0

    def url(self, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}/alerts?key=of-the-receiver"


@contextmanager
def receiver(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """One that listens while in the block; each connection has a thread."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Receiver(listener.getsockname()[1])

        def serve(connection: socket.socket) -> None:
            with suppress(OSError), connection:
                peer = tls.wrap_socket(connection, server_side=True) if tls is not None else connection
                with peer:
                    found.requests.append(_request(peer))
                    answer(peer)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    found.connections += 1
                    connection.settimeout(5)
                    threading.Thread(target=serve, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def _request(connection: socket.socket) -> tuple[dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers["content-length"]):
        body += _more(connection)
    return {**headers, "request": lines[0]}, body


def _more(connection: socket.socket) -> bytes:
    more = connection.recv(65_536)
    if not more:
        raise OSError("gone")
    return more
