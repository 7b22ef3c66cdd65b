"""Decides how one connection of an epoll set moves bytes: TCP, TLS beside the socket, what the socket did not take.

TLS stands beside the socket (memory BIOs), which makes two things cheaper than an SSLSocket: records are encrypted when
they are prepared (0.9 us a message, in a loop of its own), and an answer is read with one call of the system instead of
two (0.5 us). What is said is the protocol's, in subclasses; who is served when, the loop's (`swarm_loop`).
"""

import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, auto

from fleetsim.swarm_tls import Tls

READ_BYTES = 16_384  # what is left over stays in the system's buffer, where epoll sees it
_now_s = time.perf_counter


class Phase(Enum):
    """DOWN: no socket. DIALLING: TCP. SHAKING: TLS. GREETING: CONNECT is out. LIVE: may send. ENDED: failed."""

    DOWN = auto()
    DIALLING = auto()
    SHAKING = auto()
    GREETING = auto()
    LIVE = auto()
    ENDED = auto()


class LaneError(Exception):
    """The gate ended the connection or answered what was not asked; the text is a label for counting."""


class Wire(ABC):
    """One connection. `out` is what the socket did not take yet."""

    __slots__ = (
        *("dialled_s", "fd", "out", "phase", "sock", "tls"),
        *("_decrypt", "_incoming", "_outgoing", "_recv", "_send", "_tls"),
    )

    def __init__(self, tls: Tls) -> None:
        self.tls = tls
        self.phase = Phase.DOWN
        self.fd = -1
        self.dialled_s = 0.0
        self.sock: socket.socket | None = None
        self.out = b""

    @abstractmethod
    def greet(self) -> bytes:
        """What is said once TLS is up; empty when the connection is live at once."""

    @abstractmethod
    def take(self, data: bytes) -> int:
        """Read what the gate sent; how many requests it answered. Raises LaneError."""

    def dial(self, address: tuple[str, int]) -> None:
        """Begin to connect, without waiting. Raises OSError."""
        self.dialled_s = _now_s()
        self.sock = sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fd = sock.fileno()
        self.phase = Phase.DIALLING
        sock.connect_ex(address)

    def shake(self) -> None:
        """Go on with TCP and TLS until TLS is up, and greet. Raises as `_receive`."""
        assert self.sock is not None
        if self.phase is Phase.DIALLING:
            if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, "connect")
            self._bind(self.sock)
            self.phase = Phase.SHAKING
        else:
            self._receive()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.send(self._outgoing.read())
            return
        greeting = self.greet()
        self.phase = Phase.GREETING if greeting else Phase.LIVE
        self.send(self._outgoing.read() + self.seal(greeting))

    def _bind(self, sock: socket.socket) -> None:
        """Looks up once what is called for each message."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self.tls.wrap_bio(self._incoming, self._outgoing)
        self._recv: Callable[[int], bytes] = sock.recv
        self._send: Callable[[bytes], int] = sock.send
        self._decrypt: Callable[[int], bytes] = self._tls.read

    def _receive(self) -> None:
        """Hands TLS what has come. Raises OSError, BlockingIOError when nothing has, LaneError at the end."""
        data = self._recv(READ_BYTES)
        if not data:
            raise LaneError("closed")
        self._incoming.write(data)

    def read(self) -> bytes:
        """What the gate sent, decrypted; empty while a record is cut off. Raises as `_receive`."""
        self._receive()
        plain = b""
        try:
            while piece := self._decrypt(READ_BYTES):
                plain += piece
                if not self._incoming.pending:
                    return plain
        except ssl.SSLWantReadError:
            return plain
        # The gate said in TLS that nothing more comes, and may leave TCP open.
        if not plain:
            raise LaneError("closed")
        assert self.sock is not None
        self.sock.shutdown(socket.SHUT_RD)  # so that epoll tells of it once more, when `plain` has been taken
        return plain

    def seal(self, data: bytes) -> bytes:
        """Encrypt, in the order of calls."""
        while data:
            data = data[self._tls.write(data) :]
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        """Send now what the socket takes, keep the rest in `out` for when it is writable. Raises OSError."""
        if self.out:
            data, self.out = self.out + data, b""
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.out = data[sent:]

    def close(self, phase: Phase) -> None:
        """Drop the socket without a goodbye, as a vehicle does in a tunnel."""
        self.phase = phase
        if self.sock is not None:
            self.sock.close()
            self.sock = None
        self.out = b""
