"""A host and port: does it have an address, does anybody listen, and what answers there where TLS does not.

Decides what an error of the network means for a person. Every wait has a deadline, every read a bound: whoever answers
may be anybody. TLS itself is `tls`'s.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import mqtt5
import trio

from fleetgate.doctor.certificate import clip
from fleetgate.doctor.findings import Check, Finding, cannot_tell, good, wrong

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 5.0
PLAIN_SECONDS = 3.0
MAX_ANSWER_BYTES = 16 * 1024
PORT, TLS, SERVER, SESSION = "port", "TLS", "server", "session"
"""The parts of the way, in their order; a check is called by protocol and part."""


NAME_CA = "name the device's CA file with --ca"


class Target(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Trouble(Exception):
    """The way ends here. `finding` is None where that tells nothing of device or gate: `find_out` is what would."""

    def __init__(self, part: str, finding: Finding | None, what: str, find_out: str = "") -> None:
        super().__init__(what)
        self.part = part
        self.finding = finding
        self.find_out = find_out


class Checks:
    """The lines about one port, up to where the way ends."""

    def __init__(self, protocol: str) -> None:
        self._protocol = protocol
        self.done: list[Check] = []

    def begin(self) -> None:
        """Forgets an attempt that is made again."""
        self.done.clear()

    def add(self, check: Check) -> None:
        self.done.append(check)

    def good(self, part: str, what: str) -> None:
        self.add(good(f"{self._protocol} {part}", what))

    def server(self, *, verified: bool) -> None:
        """TLS is done."""
        if verified:
            self.good(SERVER, "TLS, and the CA file verifies the server's certificate for this name")
        else:
            why = "TLS, but without a CA file nobody knows whose"
            self.add(cannot_tell(f"{self._protocol} {SERVER}", why, NAME_CA))

    @contextmanager
    def to_the_end(self) -> Iterator[None]:
        """Ends the way where a Trouble is raised, with a line about it."""
        try:
            yield
        except Trouble as trouble:
            part = f"{self._protocol} {trouble.part}"
            if trouble.finding is None:
                self.add(cannot_tell(part, str(trouble), trouble.find_out))
            else:
                self.add(wrong(part, trouble.finding, str(trouble)))


async def connect(target: Target) -> trio.SocketStream:
    """Raises Trouble: UNKNOWN_HOST, PORT_CLOSED or NO_ANSWER."""
    with trio.move_on_after(CONNECT_SECONDS):
        try:
            return await trio.open_tcp_stream(target.host, target.port)
        except (socket.gaierror, UnicodeError):
            raise Trouble(PORT, Finding.UNKNOWN_HOST, f"the name {clip(target.host)} has no address") from None
        except OSError as error:
            numbers = {each.errno for each in _all_of(error)}
            if errno.ECONNREFUSED in numbers:
                raise Trouble(PORT, Finding.PORT_CLOSED, f"{target}: nobody listens there") from None
            raise Trouble(PORT, Finding.NO_ANSWER, f"{target}: {error.strerror or error}") from None
    raise Trouble(PORT, Finding.NO_ANSWER, f"{target}: no connection within {CONNECT_SECONDS:.0f} s")


def _all_of(error: BaseException) -> list[OSError]:
    """The errors of all addresses that were tried."""
    cause = error.__cause__
    inner: Sequence[BaseException] = cause.exceptions if isinstance(cause, BaseExceptionGroup) else [cause or error]
    return [each for each in inner if isinstance(each, OSError)]


# What answers where TLS does not.


async def without_tls(target: Target, otherwise: Finding, what: str) -> Trouble:
    """What speaks there, asked in plain HTTP, then in plain MQTT: the wrong port, or a gate without its TLS."""
    ask = f"GET /livez HTTP/1.1\r\nHost: {target.host}\r\nConnection: close\r\n\r\n".encode("ascii", "replace")
    answer = await _plain(target, ask, whole=True)
    if answer.startswith(b"HTTP/"):
        who = "; it is the admin port of fleetgate" if answer.rstrip().endswith(b'{"live":true}') else ""
        return Trouble(TLS, Finding.PLAIN_HTTP, f"{target}: it speaks HTTP without TLS{who}")
    hello = await _plain(target, mqtt5.ConnectPacket("", clean_start=True).write(), whole=False)
    if hello[:1] == b"\x20":
        return Trouble(TLS, Finding.PLAIN_MQTT, f"{target}: it speaks MQTT without TLS")
    banner = answer or hello
    if banner:
        shown = clip(banner[:40].decode("ascii", "replace").strip())
        return Trouble(TLS, Finding.NOT_TLS, f"{target}: it says {shown!r}")
    return Trouble(TLS, otherwise, f"{target}: {what}")


async def _plain(target: Target, ask: bytes, *, whole: bool) -> bytes:
    """What comes back: all of it until the other side closes, or the first bytes."""
    answer = b""
    with trio.move_on_after(PLAIN_SECONDS):
        try:
            async with await connect(target) as stream:
                await stream.send_all(ask)
                while len(answer) < MAX_ANSWER_BYTES:
                    more = await stream.receive_some(4096)
                    answer += more
                    if not (more and whole):
                        break
        except (Trouble, trio.BrokenResourceError):
            return answer
    return answer
