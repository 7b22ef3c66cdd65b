"""One TLS socket that never waits: a proxy's header, handshake, read, write, goodbye, and the one way in which each can
fail.

What OpenSSL and the kernel say of a socket is many things; the loop needs to know: nothing now, or gone.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from typing import TYPE_CHECKING, Final

from fleetgate.accept.mqtt import Session
from fleetgate.accept.proxyprotocol import HeaderError, parse
from fleetgate.accept.tls import resumed, verified_chain

if TYPE_CHECKING:
    from fleetgate.accept.lines import Line

READ_BYTES: Final = 16_384  # the most that a TLS record holds: nothing stays behind inside OpenSSL

_NOT_NOW = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
_GONE = (OSError, ValueError)  # the last one where Python has closed the socket already


class GoneError(Exception):
    """The connection is over; the text says why where that is worth telling."""


class Connection:
    """A socket and its session (None until the TLS handshake is done); `since_s` when its present stage
    began, in the machine's monotonic seconds.

    `begun`: whether the client has begun the handshake. `tenant`: whose it is once its session lives. `line`: where it
    waits, while it is not read from.

    `proxied`: the peer is one whose connections begin with a PROXY protocol header. `stalled`: a read of it did not
    end, see `stall`.
    """

    __slots__ = (
        "_header", "address", "begun", "fd", "line", "lingering", "mask", "session", "since_s", "sock", "stalled",
        "tenant",
    )  # fmt: skip

    def __init__(self, sock: ssl.SSLSocket, address: str, now_s: float, *, proxied: bool = False) -> None:
        self._header = bytearray() if proxied else None  # what is there of it; None when it is not, or no more, due
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.session: Session | None = None
        self.since_s = now_s
        self.lingering = False
        self.stalled = False
        self.begun = False
        self.tenant = ""
        self.line: Line | None = None
        self.mask = select.EPOLLIN

    def handshake(self) -> list[bytes] | int:
        """The client's verified chain (DER, leaf first) once the handshake is done, else the epoll events it waits for.

        Raises GoneError when it failed, or when it was an abbreviated one that checked no certificate.
        """
        if self._header is not None and not self._read_header(self._header):
            return select.EPOLLIN
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

    def _read_header(self, header: bytearray) -> bool:
        """Reads the proxy's header, below TLS and not one byte of what is TLS'; whether all of it is there.

        Raises GoneError when it is none.
        """
        try:
            while isinstance(found := parse(header), int):
                data = socket.socket.recv(self.sock, found)  # not SSLSocket's, which would begin with a handshake
                if not data:
                    raise GoneError("the proxy closed")
                header += data
        except BlockingIOError:
            return False
        except (HeaderError, OSError) as error:
            raise GoneError(str(error)) from None
        self._header = None
        self.address = found.address or self.address
        return True

    def receive(self) -> bytes:
        """At most one TLS record; empty for nothing now. Raises GoneError."""
        try:
            # `recv` of an SSLSocket is one more Python call around `read`, which ends with TLS itself.
            data = self.sock.recv(READ_BYTES) if self.lingering else self.sock.read(READ_BYTES)
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLWantWriteError:  # it asks for answers of TLS itself, megabytes of them, and takes none
            raise GoneError("the client reads no answers") from None
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

    @property
    def under_tls(self) -> bool:
        """Whether what is received is the client's own word, and not what anybody put in behind the end of TLS."""
        return self.sock.version() is not None

    def say_goodbye(self, *, heeds: bool) -> None:
        """Everything is sent: closes our direction and goes on reading. Raises GoneError."""
        self.lingering = True
        with contextlib.suppress(*_GONE):  # the close alert is out; the peer's is not waited for
            self.sock.unwrap()
        try:
            if heeds:  # an SSLSocket's own would forget TLS, which ends in our direction only
                socket.socket.shutdown(self.sock, socket.SHUT_WR)
            else:
                self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise GoneError(str(error)) from None
