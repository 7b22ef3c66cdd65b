"""Whose turn it is: which of the ready sockets the loop looks at.

The live sessions of each tenant are an epoll set of their own inside the loop's, so that a tenant of whom thousands are
ready takes no more of a turn than the others leave. Decides shares; how fast anybody may be is decided by `limits`.
"""

from __future__ import annotations

import contextlib
import select
from typing import Final

from fleetgate.accept.connection import Connection

MAX_EVENTS: Final = 192  # 5 ms: the longest wait for a commit. 512 cost the same CPU, 64 cost 6 % more


class _Tenant:
    """The epoll set of a tenant. `ready` is how many of its connections were, when it was last asked."""

    __slots__ = ("connections", "epoll", "ready")

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.connections = 0
        self.ready = 0


class Turns:
    """`epoll` is the loop's set: listener, connections that are nobody's yet, and a set for each tenant."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self._tenants: dict[str, _Tenant] = {}
        self._by_fd: dict[int, _Tenant] = {}

    def add(self, connection: Connection) -> None:
        self.epoll.register(connection.fd, connection.mask)

    def settle(self, connection: Connection, tenant: str) -> None:
        """From now on it is this tenant's."""
        found = self._tenants.get(tenant)
        if found is None:
            found = self._tenants[tenant] = _Tenant()
            self._by_fd[found.epoll.fileno()] = found
            self.epoll.register(found.epoll.fileno(), select.EPOLLIN)
        self.epoll.unregister(connection.fd)
        found.epoll.register(connection.fd, connection.mask)
        found.connections += 1
        connection.tenant = tenant

    def watch(self, connection: Connection, mask: int) -> None:
        """For which events it is asked from now on."""
        if mask != connection.mask:
            connection.mask = mask
            self._set_of(connection).modify(connection.fd, mask)

    def remove(self, connection: Connection) -> None:
        with contextlib.suppress(OSError, ValueError):  # its socket may be gone
            self._set_of(connection).unregister(connection.fd)
        if connection.tenant:
            found = self._tenants[connection.tenant]
            found.connections -= 1
            if not found.connections:
                del self._tenants[connection.tenant], self._by_fd[found.epoll.fileno()]
                found.epoll.close()
            connection.tenant = ""

    def _set_of(self, connection: Connection) -> select.epoll:
        return self._tenants[connection.tenant].epoll if connection.tenant else self.epoll

    def ready(self) -> list[tuple[int, int]]:
        """(descriptor, events) of those whose turn it is: at most MAX_EVENTS, and of each tenant an equal share of what
        those before it left, the least busy one first."""
        found = self.epoll.poll(0, MAX_EVENTS)
        events = [event for event in found if event[0] not in self._by_fd]
        tenants = sorted((self._by_fd[fd] for fd, _ in found if fd in self._by_fd), key=_ready)
        for waiting, tenant in zip(range(len(tenants), 0, -1), tenants, strict=True):
            theirs = tenant.epoll.poll(0, max(1, (MAX_EVENTS - len(events)) // waiting))
            tenant.ready = len(theirs)
            events += theirs
        return events


def _ready(tenant: _Tenant) -> int:
    return tenant.ready
