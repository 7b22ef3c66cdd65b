"""One TLS socket that never waits: handshake, read, write, goodbye, and the one way in which each can fail.

What OpenSSL and the kernel say of a socket is many things; the loop needs to know: nothing now, or gone.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from typing import Final

from fleetgate.accept.mqtt import Session
from fleetgate.accept.tls import resumed, verified_chain

READ_BYTES: Final = 16_384  # the most that a TLS record holds: nothing stays behind inside OpenSSL

_NOT_NOW = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_GONE = (OSError, ValueError)  # the last one where Python has closed the socket already


class GoneError(Exception):
    """The connection is over; the text says why where that is worth telling."""


class Connection:
    """A socket and its session (None until the TLS handshake is done); `since_s` when its present stage began."""

    __slots__ = ("address", "fd", "lingering", "mask", "session", "since_s", "sock")

    def __init__(self, sock: ssl.SSLSocket, address: str, now_s: float) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.session: Session | None = None
        self.since_s = now_s
        self.lingering = False
        self.mask = select.EPOLLIN

    def handshake(self) -> list[bytes] | int:
        """The client's verified chain (DER, leaf first) once the handshake is done, else the epoll events it waits for.

        Raises GoneError when it failed, or when it was an abbreviated one that checked no certificate.
        """
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return select.EPOLLIN
        except ssl.SSLWantWriteError:
            return select.EPOLLOUT
        except _GONE as error:
            why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
            raise GoneError(why) from None
        chain = verified_chain(self.sock)
        if not chain or resumed(self.sock):
            raise GoneError("no certificate was checked")
        return chain

    def receive(self) -> bytes:
        """At most one TLS record; empty for nothing now. Raises GoneError."""
        try:
            # `recv` of an SSLSocket is one more Python call around `read`, which ends with TLS itself.
            data = self.sock.recv(READ_BYTES) if self.lingering else self.sock.read(READ_BYTES)
        except _NOT_NOW:
            return b""
        except _GONE as error:
            raise GoneError(str(error)) from None
        if not data:
            raise GoneError("the client closed")
        return data

    def send(self, data: bytes | bytearray) -> int:
        """How many bytes of `data` the socket took; what is left must be the next to be sent. Raises GoneError."""
        try:
            return self.sock.send(data)
        except _NOT_NOW:
            return 0
        except _GONE as error:
            raise GoneError(str(error)) from None

    def say_goodbye(self) -> None:
        """Everything is sent: closes our direction and goes on reading. Raises GoneError."""
        self.lingering = True
        with contextlib.suppress(*_GONE):  # the close alert is out; the peer's is not waited for
            self.sock.unwrap()
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise GoneError(str(error)) from None
