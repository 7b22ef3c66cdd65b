"""The loop that drives the MQTT sockets: one trio task, one epoll set, turns that end.

Each turn takes a bounded number of events, one read of at most 16 KiB (a TLS record) from each ready socket, a bounded
number of handshake steps, then commits once and sends every answer of the turn; then it yields to trio, where HTTPS,
look-ups and timers run. docs/adr/0001-socket-loop.md has the figures that speak for this. Decides when a
connection is read from, answered and ended; how it comes in is `entrance`'s, what goes with it `connections`', the
protocol `mqtt`'s, who may stay is the door's.
"""

from __future__ import annotations

import select
import ssl
import time
from typing import Final

import trio
from mqtt5 import DisconnectReasonCode as Code

from fleetgate import log
from fleetgate.accept.connection import Connection, GoneError
from fleetgate.accept.connections import Connections
from fleetgate.accept.door import Door
from fleetgate.accept.entrance import Entrance
from fleetgate.accept.intake import Intake
from fleetgate.accept.limits import SENT, Limits
from fleetgate.accept.lines import LONGEST_PAUSE_SECONDS, Lines
from fleetgate.accept.mqtt import QUOTA, Phase, Session
from fleetgate.accept.room import Room
from fleetgate.accept.stall import LONG_READ_SECONDS
from fleetgate.accept.turns import MAX_EVENTS, Turns
from fleetgate.clock import Clock
from fleetgate.config import Edge

MAX_HANDSHAKES: Final = 8  # 1.8 ms each: the rest of the gate waits at most 15 ms
PAUSE_OUT_BYTES: Final = 64 * 1024  # a client that reads no answers is not read from either
ON_ITS_WAY_SECONDS: Final = 0.5  # behind our last words; what comes later was sent by somebody who has read them
ROOM_SECONDS: Final = 1.0  # so often it is asked whether those who wait may go on, while nothing can be stored
LINGER_SECONDS: Final = 2.0  # time to read our last words before the reset that unread bytes would cause


_IN, _LIVE = select.EPOLLIN, Phase.LIVE
_log = log.get("accept.loop")


class SocketLoop:
    """Serves MQTT to those who come in by `entrance`; `turns` has its epoll set, `connections` are there."""

    def __init__(
        self,
        turns: Turns,
        entrance: Entrance,
        settings: Edge,
        intake: Intake,
        door: Door,
        room: Room,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._turns = turns
        self._entrance = entrance
        self._settings = settings
        self._intake = intake
        self._door = door
        self._room = room
        self._limits = limits
        self._clock = clock
        self._counts = intake.counts
        self._lines = Lines()
        self._stalls = entrance.stalls
        self.connections = Connections(turns, door, self._stalls)
        self._turn_started_s = 0.0
        self._draining = False
        intake.on_commit = self._send_answers
        door.on_answer = self.resume

    async def run(self) -> None:
        """Serves until cancelled. SpoolError ends it, and with it the process."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep)
                while True:
                    await self._until_somebody_is_due()
                    self._turn()
        finally:
            self._stalls.close()

    async def _until_somebody_is_due(self) -> None:
        """Waits for a socket, or for the first line in which somebody may go on."""
        if not self._lines:
            await trio.lowlevel.wait_readable(self._turns.epoll.fileno())
            return
        # Nobody tells when there is room again, and those in the lines are not asked for meanwhile.
        due_s = self._lines.due_s - self._clock.monotonic() if self._room.open else ROOM_SECONDS
        with trio.move_on_after(max(0.0, due_s)):
            await trio.lowlevel.wait_readable(self._turns.epoll.fileno())

    # One turn.

    def _turn(self) -> None:
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic()
        self._turn_started_s = now_s
        self._stalls.turn += 1
        started_s = time.monotonic()
        handshakes, by_fd = 0, self.connections.by_fd
        if self._lines and self._room.open:
            self._go_on(now_ms, now_s)
        for fd, mask in self._turns.ready():
            connection = by_fd.get(fd)
            if connection is None:
                if fd == self._entrance.fd and not self._draining:
                    self._accept()
            elif connection.session is None:
                handshakes += 1
                if handshakes <= MAX_HANDSHAKES:
                    self._shake_hands(connection, now_s)
            elif mask & _IN:
                session = connection.session
                if not self._limits.shares_sending or self._may_send(connection, session, now_s):
                    self._read(connection, session, now_ms, now_s)
            elif mask & (select.EPOLLHUP | select.EPOLLERR):
                self.connections.close(connection)
            else:
                self.connections.touched[fd] = connection
        self._stalls.end_turn(time.monotonic() - started_s)
        self._intake.commit()

    def _accept(self) -> None:
        for connection in self._entrance.accept(self.connections.by_fd, self._settings.max_connections):
            self.connections.add(connection, self._settings.max_handshakes)

    def _shake_hands(self, connection: Connection, now_s: float) -> None:
        shown = self._entrance.shake_hands(connection, now_s)
        if shown is None:
            self.connections.close(connection)
        elif isinstance(shown, int):
            self._turns.watch(connection, shown)
        else:
            address, keep_alive_s = connection.address, self._settings.keep_alive_seconds
            handshake_s = connection.since_s, time.monotonic()
            session = Session(*shown, address, self._intake, self._door, keep_alive_s, now_s, handshake_s)
            self.connections.begin(connection, session)

    def _read(self, connection: Connection, session: Session, now_ms: int, now_s: float) -> None:
        stalls = self._stalls
        stalls.reading = connection
        spent_s = time.thread_time() if stalls.measuring else None
        try:
            data = connection.receive()
        except GoneError:
            data = None
        stalls.reading = None
        if connection.stalled or (spent_s is not None and time.thread_time() - spent_s > LONG_READ_SECONDS):
            self._bar(connection, session, now_ms, now_s)
        elif data is None:
            self.connections.close(connection)
        elif data and not connection.lingering:
            session.feed(data, now_ms, now_s)
            self.connections.touched[connection.fd] = connection
        elif data and connection.under_tls and time.monotonic() - connection.since_s > ON_ITS_WAY_SECONDS:
            session.feed_behind_the_end(data, now_ms, now_s)

    def _may_send(self, connection: Connection, session: Session, now_s: float) -> bool:
        """Whether none of the limits that it shares is used up; else it joins the line of that account, and is not read
        from meanwhile."""
        if session.phase is not _LIVE or session.caller is None:
            return True
        for account in self._intake.senders(session.caller):
            wait_s = account.wait(SENT, now_s)
            if wait_s > LONGEST_PAUSE_SECONDS:
                session.end(Code.QUOTA_EXCEEDED, QUOTA)
                self.connections.touched[connection.fd] = connection
                return False
            if wait_s:
                self._lines.join(connection, account, now_s + wait_s)
                self._turns.watch(connection, self._interest(connection, session))
                return False
        return True

    def _go_on(self, now_ms: int, now_s: float) -> None:
        """Reads from those who have waited for an account that has something left again."""
        for connection in self._lines.going_on(MAX_EVENTS, now_s):
            session = connection.session
            assert session is not None, "only what a session sends is charged"
            self._turns.watch(connection, self._interest(connection, session))
            if session.slowed:
                self._take_up(connection, session, now_ms, now_s)
            elif self._may_send(connection, session, now_s):
                self._read(connection, session, now_ms, now_s)

    def _bar(self, connection: Connection, session: Session, now_ms: int, now_s: float) -> None:
        """Ends a connection that held everybody up, and keeps its credential out for a while."""
        if session.caller is not None:
            self._intake.scores.abused(session.caller.known, now_ms)
        self._entrance.bar(connection, session.identity, now_s)
        self.connections.close(connection)

    # Answers, once the commit has returned.

    def _send_answers(self) -> None:
        acks = 0
        for connection in self.connections.take_touched().values():
            session = connection.session
            if session is not None and not connection.lingering:
                acks += len(session.acks)
                try:
                    self._send(connection, session)
                except GoneError:
                    self.connections.close(connection)
        if acks:
            self._counts.acks["mqtt"] += acks
            self._counts.ack_seconds.observe(self._clock.monotonic() - self._turn_started_s)

    def _send(self, connection: Connection, session: Session) -> None:
        """Raises GoneError."""
        out = session.out
        if session.acks:
            answer = b"".join(session.acks)
            session.acks.clear()
            if not out:
                sent = connection.send(answer)
                plain = session.phase is _LIVE and connection.mask == _IN and not session.slowed
                if plain and sent == len(answer) and not self._room.why:
                    return None  # nearly always: there is nothing to decide anew
                answer = answer[sent:]
            out += answer
        if session.farewell:
            out += session.farewell
            session.farewell = b""
        if out:
            del out[: connection.send(out)]
        if session.phase is _LIVE:
            if connection.fd in self.connections.unready and session.identity is not None:
                self.connections.settle(connection, session.identity.tenant)
        elif session.phase is Phase.ENDED and not out:
            return self.connections.linger(connection)
        return self._turns.watch(connection, self._interest(connection, session))

    def _interest(self, connection: Connection, session: Session) -> int:
        reading = (
            session.phase in (Phase.LIVE, Phase.GREETING)
            and connection.line is None
            and len(session.out) < PAUSE_OUT_BYTES
            and not session.slowed
            and (self._room.open or session.phase is Phase.GREETING)
        )
        return (select.EPOLLIN if reading else 0) | (select.EPOLLOUT if session.out else 0)

    def resume(self, session: Session) -> None:
        """After something outside a turn changed the session: sends its answers with the next commit."""
        connection = self.connections.of(session)
        if connection is not None:
            self.connections.touched[connection.fd] = connection
            self._intake.wake()

    def room_changed(self) -> None:
        """Stops reading from vehicles while nothing can be stored, and goes on when there is room again."""
        now_s = self._clock.monotonic()
        for session in self.connections.sessions:
            session.last_packet_s = now_s  # who was not read from was not silent: its keep-alive begins anew
        self.connections.touched.update(self.connections.by_fd)
        self._intake.wake()

    def send_away(self) -> None:
        """Ends every live session: what let it in may not be relied on any more. It may come back at once."""
        for session in self.connections.sessions:
            if session.phase is Phase.LIVE:
                session.end(Code.SERVER_BUSY, "come back later")
                self.resume(session)

    def replace_tls(self, context: ssl.SSLContext, *, distrusts: bool) -> None:
        """For handshakes from now on. `distrusts`: a CA is trusted no more, so everybody is verified again."""
        self._entrance.context = context
        if distrusts:
            self.send_away()
            for connection in list(self.connections.by_fd.values()):
                if connection.session is None or connection.session.phase in (Phase.GREETING, Phase.IDENTIFYING):
                    self.connections.close(connection)

    async def _sweep(self) -> None:
        """Once a second: handshakes, silences, goodbyes and former credentials that took too long."""
        while True:
            await trio.sleep(1)
            if not self._draining:
                self._entrance.open()
            now_s, machine_s = self._clock.monotonic(), time.monotonic()
            for connection in list(self.connections.unready.values()):
                if machine_s - connection.since_s > self._settings.handshake_seconds:
                    self.connections.close(connection)
            for connection in list(self.connections.by_fd.values()):
                session = connection.session
                if session is not None and session.slowed and session.phase is Phase.LIVE and connection.line is None:
                    self._take_up(connection, session, self._clock.now_ms(), now_s)
                if connection.lingering:
                    if machine_s - connection.since_s > LINGER_SECONDS:
                        self.connections.close(connection)
                elif session is not None and session.phase is Phase.LIVE and self._room.open:
                    self._look_after(connection, session, now_s)
                elif session is not None and session.phase is Phase.ENDED and session.overdue(now_s):
                    self.connections.close(connection)

    def _look_after(self, connection: Connection, session: Session, now_s: float) -> None:
        """Ends a live session whose time is over; one that is not read from, whyever, is only not silent."""
        if session.identity is not None and self._clock.now_ms() > session.identity.not_after_ms:
            session.end(Code.NOT_AUTHORIZED, "the certificate has expired")
            self.resume(session)
            return
        self._door.look_again(session)
        if connection.line is not None or session.slowed:
            session.last_packet_s = now_s
        elif session.overdue(now_s):
            session.end(Code.KEEP_ALIVE_TIMEOUT, "no packet within one and a half keep-alives")
            self.resume(session)

    def _take_up(self, connection: Connection, session: Session, now_ms: int, now_s: float) -> None:
        """Takes up a slowed session again, by what waits in its buffer: it was not silent, but not read from."""
        session.last_packet_s = now_s
        if not self._room.open or (session.caller is not None and session.caller.known.brake.until_s > now_s):
            return
        if connection.fd in self.connections.unready:
            return  # its CONNACK goes first, and with it whose turns it takes
        if not self._limits.shares_sending or self._may_send(connection, session, now_s):
            session.feed(b"", now_ms, now_s)
        elif connection.line is not None:
            self._turns.begin()  # whoever waits for a socket does not know yet when the line is due
        self.connections.touched[connection.fd] = connection
        self._intake.wake()

    def drain(self) -> None:
        """Stops accepting and tells every client to go elsewhere; what was received is answered first."""
        self._draining = True
        self._entrance.close()
        for connection in list(self.connections.by_fd.values()):
            if connection.session is None:
                self.connections.close(connection)
            elif connection.session.phase is Phase.IDENTIFYING:
                connection.session.turn_away(None)
                self.connections.touched[connection.fd] = connection
            else:
                connection.session.end(Code.SERVER_SHUTTING_DOWN, "the edge is going down, come back")
                self.connections.touched[connection.fd] = connection
        self._intake.wake()
