"""Whose turn it is: which of the ready sockets the loop looks at.

The live sessions of each tenant are an epoll set of their own inside the loop's, so that a tenant of whom thousands are
ready takes no more of a turn than the others leave. Those that are nobody's yet are one more set: anybody can open
hundreds of connections, and a fleet that comes back does. Decides shares; how fast anybody may be is decided by
`limits`.
"""

from __future__ import annotations

import contextlib
import os
import select
from typing import Final

from fleetgate.accept.connection import Connection

MAX_EVENTS: Final = 192  # 5 ms: the longest wait for a commit. 512 cost the same CPU, 64 cost 6 % more


NOBODY: Final = ""  # of whom it is not known yet who they are


class _Tenant:
    """The epoll set of a tenant. `ready` is how many of its connections were, when it was last asked."""

    __slots__ = ("connections", "epoll", "ready")

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.connections: set[Connection] = set()
        self.ready = 0


class Turns:
    """`epoll` is the loop's set: the listener, a set for the connections that are nobody's yet, and one for each
    tenant; and a descriptor that is asked for nothing until `begin`."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self._tenants: dict[str, _Tenant] = {}
        self._by_fd: dict[int, _Tenant] = {}
        self._open(NOBODY)
        self._bell = os.eventfd(0)  # can be written to at any time
        self.epoll.register(self._bell, 0)

    def begin(self) -> None:
        """Has one turn begun though no socket is ready."""
        self.epoll.modify(self._bell, select.EPOLLOUT | select.EPOLLONESHOT)

    def add(self, connection: Connection) -> None:
        self._join(connection, NOBODY)

    def settle(self, connection: Connection, tenant: str) -> None:
        """From now on it is this tenant's."""
        before = self._tenants[connection.tenant]
        before.epoll.unregister(connection.fd)
        before.connections.discard(connection)
        self._join(connection, tenant)

    def _open(self, tenant: str) -> _Tenant:
        found = self._tenants[tenant] = _Tenant()
        self._by_fd[found.epoll.fileno()] = found
        self.epoll.register(found.epoll.fileno(), select.EPOLLIN)
        return found

    def _join(self, connection: Connection, tenant: str) -> None:
        found = self._tenants.get(tenant) or self._open(tenant)
        found.epoll.register(connection.fd, connection.mask)
        found.connections.add(connection)
        connection.tenant = tenant

    def watch(self, connection: Connection, mask: int) -> None:
        """For which events it is asked from now on."""
        if mask != connection.mask:
            connection.mask = mask
            self._tenants[connection.tenant].epoll.modify(connection.fd, mask)

    def remove(self, connection: Connection) -> None:
        found = self._tenants.get(connection.tenant)
        if found is None or connection not in found.connections:
            return
        with contextlib.suppress(OSError, ValueError):  # its socket may be gone
            found.epoll.unregister(connection.fd)
        found.connections.discard(connection)
        if connection.tenant != NOBODY and not found.connections:
            del self._tenants[connection.tenant], self._by_fd[found.epoll.fileno()]
            found.epoll.close()

    def ready(self) -> list[tuple[int, int]]:
        """(descriptor, events) of those whose turn it is: at most MAX_EVENTS, and of each tenant, and of those that are
        nobody's yet, an equal share of what those before it left, the least busy one first."""
        found = self.epoll.poll(0, MAX_EVENTS)
        events = [event for event in found if event[0] not in self._by_fd and event[0] != self._bell]
        tenants = sorted((self._by_fd[fd] for fd, _ in found if fd in self._by_fd), key=_ready)
        for waiting, tenant in zip(range(len(tenants), 0, -1), tenants, strict=True):
            theirs = tenant.epoll.poll(0, max(1, (MAX_EVENTS - len(events)) // waiting))
            tenant.ready = len(theirs)
            events += theirs
        return events


def _ready(tenant: _Tenant) -> int:
    return tenant.ready
