"""All MQTT connections of the loop, from accept to close: who is there, who is through, who has something to be sent.

Decides what has to be let go of when one ends, and in which order: its place in a line, its device, its descriptor.
When it ends is decided by the loop.
"""

from __future__ import annotations

import select
import time
from collections.abc import KeysView

from fleetgate import log
from fleetgate.accept.connection import Connection, GoneError
from fleetgate.accept.door import Door
from fleetgate.accept.mqtt import Phase, Session
from fleetgate.accept.stall import Stalls
from fleetgate.accept.turns import Turns

_log = log.get("accept.connections")


class Connections:
    """By descriptor, `by_fd` all of them; `unready` those whose session does not live yet, the oldest first; `touched`
    those that are looked at behind the next commit."""

    def __init__(self, turns: Turns, door: Door, stalls: Stalls) -> None:
        self._turns = turns
        self._door = door
        self._stalls = stalls
        self.by_fd: dict[int, Connection] = {}
        self.unready: dict[int, Connection] = {}
        self.touched: dict[int, Connection] = {}
        self._of_session: dict[Session, Connection] = {}

    @property
    def sessions(self) -> KeysView[Session]:
        """Those that have begun and hold on to their device still."""
        return self._of_session.keys()

    @property
    def empty(self) -> bool:
        """Whether every goodbye is said."""
        return all(connection.lingering for connection in self.by_fd.values())

    def of(self, session: Session) -> Connection | None:
        return self._of_session.get(session)

    def add(self, connection: Connection, most_unready: int) -> None:
        """One that has come; beyond so many that are not through, the oldest of them goes."""
        if len(self.unready) >= most_unready:
            self.close(next(iter(self.unready.values())))
        self.by_fd[connection.fd] = self.unready[connection.fd] = connection
        self._turns.add(connection)

    def begin(self, connection: Connection, session: Session) -> None:
        """Its handshake is done."""
        connection.session = session
        self._of_session[session] = connection
        self._turns.watch(connection, select.EPOLLIN)

    def settle(self, connection: Connection, tenant: str) -> None:
        """Its session lives, and it takes turns with its tenant's."""
        if self.unready.pop(connection.fd, None) is not None:
            self._turns.settle(connection, tenant)

    def take_touched(self) -> dict[int, Connection]:
        """Those that were touched since it was last asked."""
        touched, self.touched = self.touched, {}
        return touched

    def linger(self, connection: Connection) -> None:
        """Everything is sent: lets the client read it before the socket goes (an early close would reset it)."""
        if connection.session is not None:
            _log.debug("session_ended", address=connection.address, why=connection.session.ended_because)
        self._release(connection)
        connection.since_s = time.monotonic()
        self._stalls.reading = connection
        try:
            connection.say_goodbye(heeds=connection.session is not None and connection.session.taken_over_ms > 0)
        except GoneError:
            return self.close(connection)
        finally:
            self._stalls.reading = None
        self.unready.pop(connection.fd, None)
        return self._turns.watch(connection, select.EPOLLIN)

    def close(self, connection: Connection) -> None:
        self._release(connection)
        self.by_fd.pop(connection.fd, None)
        self.unready.pop(connection.fd, None)
        self.touched.pop(connection.fd, None)
        if connection.session is not None:
            connection.session.phase = Phase.ENDED
        self._turns.remove(connection)
        connection.sock.close()

    def _release(self, connection: Connection) -> None:
        """Lets go of the device, if this connection holds its session, and of its place in a line."""
        if connection.line is not None:
            connection.line.remove(connection)
        session = connection.session
        if session is not None and self._of_session.pop(session, None) is not None:
            self._door.leave(session)
