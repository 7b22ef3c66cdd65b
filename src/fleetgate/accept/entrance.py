"""The way in over MQTT: from a listening socket to a connection of which is known whose certificate it has shown.

Decides how many may begin, which limits they meet before they are anybody's, and that whoever held the loop up stays
out. When a handshake takes its next step is decided by the loop; whom it is charged to, by `handshakes`; whether its
device may come in, by the door.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterator, Sized
from typing import Final, NamedTuple

from fleetgate import log
from fleetgate.accept.connection import Connection, GoneError
from fleetgate.accept.counts import Counts
from fleetgate.accept.handshakes import Handshakes
from fleetgate.accept.limits import Limits, Quantity
from fleetgate.accept.proxies import Proxies
from fleetgate.accept.stall import Stalls
from fleetgate.accept.strangers import stranger_log, who
from fleetgate.accept.turns import Turns
from fleetgate.accept.vetting import Vetting
from fleetgate.clock import Clock
from fleetgate.control.profile import CertificateIdentity, ProfileError

MAX_ACCEPTS: Final = 64

_log = log.get("accept.entrance")


class Shown(NamedTuple):
    """What a verified certificate says; where that is nothing the gate takes, why."""

    identity: CertificateIdentity | None
    profile_error: str


class Entrance:
    """Of `listener`, a bound and listening non-blocking socket in the loop's epoll set. `context` is for handshakes
    from now on. To be made in the loop's thread."""

    def __init__(
        self,
        listener: socket.socket,
        turns: Turns,
        context: ssl.SSLContext,
        vetting: Vetting,
        proxies: Proxies,
        limits: Limits,
        handshakes: Handshakes,
        counts: Counts,
        clock: Clock,
    ) -> None:
        self._listener = listener
        self._epoll = turns.epoll
        self._vetting = vetting
        self._proxies = proxies
        self._limits = limits
        self._handshakes = handshakes
        self._counts = counts
        self._clock = clock
        self._stranger_log = stranger_log(_log, clock)
        self.context = context
        self.stalls = Stalls()
        self.fd = listener.fileno()
        self._epoll.register(self.fd, select.EPOLLIN)

    def open(self) -> None:
        """Accepts again, where it could not for want of descriptors."""
        self._epoll.modify(self.fd, select.EPOLLIN)

    def close(self) -> None:
        """Accepts nobody any more."""
        self._epoll.unregister(self.fd)
        self._listener.close()

    def accept(self, there: Sized, most: int) -> Iterator[Connection]:
        """Those who have come. `there` are the connections so far, those that were given out before among them; beyond
        `most` of them nobody else comes in."""
        now_s = time.monotonic()  # a handshake is this machine's work: its deadline is not on the gate's clock
        limit_s = self._clock.monotonic()  # but limits are, as for HTTPS: both take from one bucket
        for _ in range(MAX_ACCEPTS):
            try:
                plain, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # out of descriptors: those that are open go on
                _log.error("accept_failed", error=error.strerror)
                self._epoll.modify(self.fd, 0)  # until it is opened again: it would stay readable
                return
            if len(there) >= most or not self._limits.admit_to_gate(Quantity.CONNECTIONS, limit_s):
                plain.close()
                continue
            plain.setblocking(False)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                sock = self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            except OSError:  # gone already
                plain.close()
                continue
            proxied = self._proxies.sends_header(address[0])
            yield Connection(sock, f"{address[0]}:{address[1]}", now_s, proxied=proxied)

    def shake_hands(self, connection: Connection, now_s: float) -> Shown | int | None:
        """A step of the handshake: what the client has shown, or the epoll events of its next step; None when it is not
        to come in."""
        if not connection.begun:
            connection.begun = True
            if not self._limits.admit_to_gate(Quantity.HANDSHAKES, now_s):
                return None
        self.stalls.reading = connection
        try:
            return self._shake_hands(connection, now_s)
        except GoneError as error:
            self._counts.failed_handshakes += 1
            self._stranger_log.warning("handshake_failed", address=connection.address, error=str(error))
        except Exception as error:  # what one client sends ends its own connection, whatever is overlooked here
            self._counts.failed_handshakes += 1
            self._stranger_log.warning("connection_failed", address=connection.address, error=type(error).__name__)
        finally:
            self.stalls.reading = None
        return None

    def _shake_hands(self, connection: Connection, now_s: float) -> Shown | int | None:
        """Raises GoneError."""
        chain = connection.handshake()
        if isinstance(chain, int):
            return chain
        identity: CertificateIdentity | None = None
        profile_error = ""
        try:
            identity = self._vetting.identity(chain[0], chain)
        except ProfileError as error:
            profile_error = str(error)
            self._stranger_log.warning("certificate_profile", address=connection.address, error=profile_error)
        if self.stalls.barred(who(identity, connection.address), now_s):
            return None
        if identity is not None and not self._handshakes.admits(identity):
            return None
        return Shown(identity, profile_error)

    def bar(self, connection: Connection, identity: CertificateIdentity | None, now_s: float) -> None:
        """Keeps out for a while whoever held everybody up: the credential, for its device may have another by now."""
        culprit = who(identity, connection.address)
        self._counts.protocol_errors += 1
        self._stranger_log.warning("stalled", by=culprit, address=connection.address, means="kept out for ten minutes")
        self.stalls.bar(culprit, now_s)
