"""A revocation list from somebody else's web server, in bounded time and memory.

Straight from the server that is named: through no proxy of the environment, and without following it elsewhere. The
list is signed, so its way need not be; but whoever sits on that way may send anything, or nothing. HTTP is `h11`'s,
which hands over a body piece by piece and refuses framing that is not to the letter. What is done with the content is
`accept.lists`'.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

from fleetgate.control.revocation import MAX_LIST_BYTES, ListError

SILENT_SECONDS: Final = 5.0  # a server that says nothing for so long, or shakes hands
FETCH_SECONDS: Final = 30.0  # ... and for a whole list

_READ_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 16 * 1024
_ERROR_CHARS: Final = 200  # h11 quotes what it was sent


def fetch(url: str) -> bytes:
    """What a server gives for the URL. Raises ListError."""
    deadline_s = time.monotonic() + FETCH_SECONDS
    try:
        where = urlsplit(url)
        with _connected(where) as sock:
            http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
            host = where.netloc.rpartition("@")[2]
            target = f"{where.path or '/'}{'?' if where.query else ''}{where.query}"
            headers = [("Host", host), ("Connection", "close")]
            sock.sendall(http.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
            http.send(h11.EndOfMessage())
            return _body(http, sock, deadline_s)
    except (OSError, ValueError, h11.ProtocolError) as error:
        raise ListError(f"it cannot be fetched: {str(error)[:_ERROR_CHARS]}") from None


@contextmanager
def _connected(where: SplitResult) -> Iterator[socket.socket]:
    """Raises OSError, ValueError."""
    context = ssl.create_default_context() if where.scheme == "https" else None
    address = (where.hostname or "", where.port or (443 if context else 80))
    with socket.create_connection(address, SILENT_SECONDS) as plain:
        if context is None:
            yield plain
        else:
            with context.wrap_socket(plain, server_hostname=where.hostname) as sock:
                yield sock


def _body(http: h11.Connection, sock: socket.socket, deadline_s: float) -> bytes:
    """Raises ListError, OSError, h11.ProtocolError."""
    content = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise ListError(f"it cannot be fetched: it did not arrive within {FETCH_SECONDS:.0f} s")
            sock.settimeout(min(SILENT_SECONDS, left_s))
            http.receive_data(sock.recv(_READ_BYTES))
        elif isinstance(event, h11.Response) and event.status_code != HTTPStatus.OK:
            raise ListError(f"it cannot be fetched: the server says {event.status_code}; redirections are not followed")
        elif isinstance(event, h11.Data):
            content += event.data
            if len(content) > MAX_LIST_BYTES:
                raise ListError(f"it is larger than {MAX_LIST_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(content)
