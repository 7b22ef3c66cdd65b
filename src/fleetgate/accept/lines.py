"""Who is not read from for a while, and goes on in which order.

A connection whose device shares a limit that is used up waits in the line of that account: TCP pushes back meanwhile,
and nobody is scored for what others sent. When something is left again the first of the line goes on, one at a time and
tenant by tenant, until nothing is left once more. Decides the order; what is left is decided by `limits`, and what it
means not to be read from by the loop.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from fleetgate.accept.connection import Connection
from fleetgate.accept.limits import Account

LONGEST_PAUSE_SECONDS: Final = 30.0
"""Who would be left unread for longer is told so, and goes: his pings would stay unanswered, and he would come back
again and again to find out why."""


class Line:
    """Those who wait for one account. `due_s` is when it may have something left, in monotonic seconds."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.due_s = 0.0
        self._waiting: OrderedDict[str, OrderedDict[Connection, None]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, connection: Connection) -> None:
        self._waiting.setdefault(connection.tenant, OrderedDict())[connection] = None
        connection.line = self

    def remove(self, connection: Connection) -> None:
        """It goes on, or has gone."""
        theirs = self._waiting[connection.tenant]
        del theirs[connection]
        if not theirs:
            del self._waiting[connection.tenant]
        connection.line = None

    def first(self) -> Connection:
        """Takes one of the tenant that has waited for its turn longest, however many others have in the line."""
        tenant, theirs = next(iter(self._waiting.items()))
        self._waiting.move_to_end(tenant)
        connection = next(iter(theirs))
        self.remove(connection)
        return connection


class Lines:
    """All of them, by account."""

    def __init__(self) -> None:
        self._of: dict[Account, Line] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    @property
    def due_s(self) -> float:
        """When the first of them may go on."""
        return min((line.due_s for line in self._of.values()), default=math.inf)

    def join(self, connection: Connection, account: Account, due_s: float) -> None:
        line = self._of.get(account)
        if line is None:
            line = self._of[account] = Line(account)
        line.due_s = due_s
        line.add(connection)

    def going_on(self, most: int, now_s: float) -> Iterator[Connection]:
        """Those who may go on now, at most so many. What each of them does is charged before the next one is asked."""
        for account, line in list(self._of.items()):
            while most and line and line.due_s <= now_s:
                wait_s = account.open_in(now_s)
                if wait_s:
                    line.due_s = now_s + wait_s
                    break
                most -= 1
                yield line.first()
            if not line:
                del self._of[account]
