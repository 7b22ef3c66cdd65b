"""Whose turn it is to watch the fleet, and until when: one load of all that share ClickHouse and control.

Decides when a load says that it is there, which others are dead, and until when everybody has loaded. A load that died
is waited for no longer than DEAD_SECONDS: then its vehicles are silent, and that is worth an alert. One that lives and
is behind holds the watch back, as its backlog is no silence, but not for ever. A load that cannot say that it is there
leaves its turn before the others count it as dead, except where there were no others: control that is away makes
nobody blind. All this is of the machine's time, whatever clock vehicles live on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from fleetgate import log
from fleetgate.control.watchturns import Turn
from fleetgate.errors import FleetgateError

SAY_SECONDS = 5.0
DEAD_SECONDS = 60.0
LEAVE_SECONDS = 30.0
"""Less than DEAD_SECONDS by as much as a look may take."""

MOST_BEHIND_MS = 10 * 60_000
"""A load that is further behind the first is not waited for."""

LoadedUntil = Callable[[], int | None]
"""Unix ms: everything that the edge of this load received before is loaded; None while that is not known."""

TakePart = Callable[[str, int | None, Mapping[str, int]], Sequence[Turn]]
"""`control.watchturns.take_part` of the records. Raises ControlAway."""


class Turns:
    """Used by one thread. `spool` names the spool of this load, once there is one."""

    def __init__(
        self,
        spool: Callable[[], str | None],
        loaded_until: LoadedUntil,
        take_part: TakePart,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._loaded_until = loaded_until
        self._take_part = take_part
        self._monotonic = monotonic
        self._others: list[Turn] = []
        self._heard: dict[str, tuple[int, float]] = {}  # of each other: what it said last, and since when
        self._mine = False
        self._away = ""
        self._said_s = self._due_s = -DEAD_SECONDS
        self._log = log.get("watch")

    def mine(self) -> bool:
        """Whether this load watches. Asked before each look; says that it is there when that is due."""
        now_s = self._monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + SAY_SECONDS
            try:
                self._say(now_s)
                self._away = ""
            except FleetgateError as error:
                if str(error) != self._away:
                    self._away = str(error)
                    self._log.warning("turn_not_told", error=self._away)
        return self._mine and (not self._others or now_s - self._said_s < LEAVE_SECONDS)

    def elsewhere(self) -> bool:
        """Whether another load watches, by what control said last."""
        return any(turn.watches for turn in self._others)

    def until_ms(self) -> int | None:
        """Until when all have loaded; None while that is not known of this one."""
        own = self._loaded_until()
        if own is None:
            return None
        known = [own, *(turn.until_ms for turn in self._others if turn.until_ms is not None)]
        return max(min(known), max(known) - MOST_BEHIND_MS)

    def _say(self, now_s: float) -> None:
        spool = self._spool()
        if spool is None:
            return
        dead = {name: said for name, (said, since_s) in self._heard.items() if now_s - since_s >= DEAD_SECONDS}
        turns = self._take_part(spool, self._loaded_until(), dead)
        self._said_s = now_s
        self._others = [turn for turn in turns if turn.spool != spool]
        before = self._heard
        self._heard = {
            turn.spool: before[turn.spool]
            if turn.spool in before and before[turn.spool][0] == turn.said
            else (turn.said, now_s)
            for turn in self._others
        }
        mine = any(turn.watches for turn in turns if turn.spool == spool)
        if mine != self._mine:
            self._log.info("watches" if mine else "watches_no_more")
        self._mine = mine
