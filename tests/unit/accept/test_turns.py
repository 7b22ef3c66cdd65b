"""Whose turn it is, over real sockets and a real epoll: tenants share a turn, and whoever waits goes on in order."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from fleetgate.accept.connection import Connection
from fleetgate.accept.limits import Account, Level, Quantity, Rates, no_hits
from fleetgate.accept.lines import Lines
from fleetgate.accept.turns import MAX_EVENTS, NOBODY, Turns
from fleetgate.config import Limit


class Sockets:
    """Connections to a `Turns`; the vehicles' ends have sent something."""

    def __init__(self) -> None:
        self.turns = Turns()
        self._open = ExitStack()
        self.tenant_of: dict[int, str] = {}

    def connect(self, tenant: str, *, ready: bool = True) -> Connection:
        """Of NOBODY: one that is not through TLS yet."""
        ours, theirs = (self._open.enter_context(end) for end in socket.socketpair())
        connection = Connection(ours, tenant, 0.0)  # type: ignore[arg-type]  # TLS is not got to
        self.turns.add(connection)
        if tenant != NOBODY:
            self.turns.settle(connection, tenant)
        self.tenant_of[connection.fd] = tenant
        if ready:
            theirs.send(b"x")
        return connection

    def turn(self) -> list[str]:
        """The tenants of those whose turn it is; each is read from."""
        events = self.turns.ready()
        for fd, _ in events:
            os.read(fd, 1)
        return [self.tenant_of[fd] for fd, _ in events]

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    opened = Sockets()
    yield opened
    opened.close()


def test_a_tenant_of_whom_hundreds_are_ready_leaves_the_others_their_place(sockets: Sockets) -> None:
    """Whoever comes last, of a tenant with few, is read in the very next turn; the turn is full nevertheless."""
    for _ in range(300):
        sockets.connect("noisy")
    for tenant in ("quiet", "calm", "calm"):
        sockets.connect(tenant)
    first = sockets.turn()
    assert [first.count(tenant) for tenant in ("quiet", "calm")] == [1, 2]
    assert first.count("noisy") >= MAX_EVENTS // 3
    sockets.connect("quiet")
    second = sockets.turn()
    assert (second.count("quiet"), second.count("noisy")) == (1, MAX_EVENTS - 1)  # now it is known who is the busy one


def test_a_tenant_alone_has_the_whole_turn(sockets: Sockets) -> None:
    """Fairness costs nobody anything while there is nobody else."""
    for _ in range(300):
        sockets.connect("only")
    assert [len(sockets.turn()) for _ in range(3)] == [MAX_EVENTS, 300 - MAX_EVENTS, 0]


def test_who_only_connects_leaves_those_who_send_their_place(sockets: Sockets) -> None:
    """A flood of strangers, or a whole fleet that comes back: more are ready for a handshake than fit into a turn, and
    they stay so, as only a few handshakes are made in each."""
    for _ in range(400):
        sockets.connect(NOBODY)
    for _ in range(100):
        sockets.connect("acme")
    turns = []
    for _ in range(2):
        told = [sockets.tenant_of[fd] for fd, _ in sockets.turns.ready()]  # nothing is read
        turns.append((told.count("acme"), len(told)))
    assert turns == [(MAX_EVENTS // 2, MAX_EVENTS)] * 2


def test_what_is_closed_leaves_nothing_behind(sockets: Sockets) -> None:
    """The last connection of a tenant takes its set with it; one that is not looked at is not told of."""
    one, two = sockets.connect("acme"), sockets.connect("acme")
    sockets.turns.watch(one, 0)
    assert len(sockets.turn()) == 1
    stranger = sockets.connect(NOBODY)
    for connection in (two, one, stranger, stranger):
        sockets.turns.remove(connection)
    assert (set(sockets.turns._tenants), len(sockets.turns._by_fd)) == ({NOBODY}, 1)
    assert not sockets.turns._tenants[NOBODY].connections


class TestWhoWaits:
    """Lines of an account that is used up."""

    @pytest.fixture
    def account(self) -> Account:
        """Two at once, and two in each second."""
        return Account(Rates(Level.GATE, Limit(messages="2/s")), no_hits())

    def going_on(self, lines: Lines, account: Account, now_s: float, most: int = 100) -> list[str]:
        """The tenants of those who go on at this time; each sends one message."""
        gone_on = []
        for connection in lines.going_on(most, now_s):
            gone_on.append(connection.tenant)
            account.charge(Quantity.MESSAGES, 1, now_s)
        return gone_on

    def test_tenants_take_turns_whoever_has_more_in_the_line(self, sockets: Sockets, account: Account) -> None:
        """As many as the account has left, and then it is waited for again."""
        account.take(2, 0, 0.0)
        lines = Lines()
        for tenant in [*["noisy"] * 50, "quiet", "calm"]:
            lines.join(sockets.connect(tenant, ready=False), account, 0.5)
        gone_on = [self.going_on(lines, account, 0.6 * step) for step in range(5)]
        assert gone_on == [[], ["noisy"], ["quiet"], ["calm"], ["noisy"]]
        assert lines.due_s > 2.4

    def test_nobody_goes_on_ahead_of_time_or_more_than_a_turn_takes(self, sockets: Sockets, account: Account) -> None:
        """A line that is not due is not looked at; a turn ends."""
        account.take(1, 0, 0.0)
        lines = Lines()
        for _ in range(9):
            lines.join(sockets.connect("acme", ready=False), account, 7.0)
        assert self.going_on(lines, account, 6.9) == []
        assert len(self.going_on(lines, account, 7.0, most=1)) == 1
        assert lines.due_s <= 7.0

    def test_who_leaves_the_line_is_not_waited_for(self, sockets: Sockets, account: Account) -> None:
        """Its connection has gone meanwhile."""
        lines = Lines()
        first, second = (sockets.connect(tenant, ready=False) for tenant in ("acme", "rival"))
        for connection in (first, second):
            lines.join(connection, account, 1.0)
        assert first.line is not None
        first.line.remove(first)
        assert self.going_on(lines, account, 1.0) == ["rival"]
        assert not lines
        assert {first.line, second.line} == {None}


def test_a_turn_can_be_begun_once_without_anybody_ready(sockets: Sockets) -> None:
    """For what somebody else than a socket has made due; it is nobody's turn."""
    waiting = [sockets.turns.epoll.poll(0)]
    sockets.turns.begin()
    waiting += [sockets.turns.epoll.poll(0), sockets.turns.epoll.poll(0)]
    sockets.turns.begin()
    assert ([len(found) for found in waiting], sockets.turn()) == ([0, 1, 0], [])
