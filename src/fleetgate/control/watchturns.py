"""Which load watches the fleet: of all that share these records, one at a time.

Each load takes part under the name of its spool, so that one which is restarted goes on with its turn. It says now and
then that it is there and how far it has loaded; that is one transaction, so two never take the same turn. Decides who
watches; which load is dead is decided by those who see it say nothing (`load.watch.turn`), by their own clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import delete, insert, select, update

from fleetgate.control.schema import watch_turns
from fleetgate.control.store import Store

ACTOR = "load"


class Turn(NamedTuple):
    """Of one load: `said` grows each time it says something. Everything that its edge received before `until_ms` (Unix
    ms) is loaded; None where it does not know."""

    spool: str
    said: int
    until_ms: int | None
    watches: bool


def take_part(store: Store, spool: str, until_ms: int | None, dead: Mapping[str, int]) -> list[Turn]:
    """Says that this load is there; returns all that are. Those of `dead` that have said no more than that are struck
    off, and where none watches, this one does. Raises ControlAway."""
    with store.write(ACTOR) as write:
        for other, said in dead.items():
            write.execute(delete(watch_turns).where(watch_turns.c.spool == other, watch_turns.c.said == said))
        turns = {row.spool: Turn._make(row) for row in write.rows(select(*_COLUMNS))}
        others_watch = any(turn.watches for turn in turns.values() if turn.spool != spool)
        mine = turns.get(spool)
        now = Turn(spool, 1 if mine is None else mine.said + 1, until_ms, not others_watch)
        if mine is None:
            write.execute(insert(watch_turns), now._asdict())
        else:
            write.execute(update(watch_turns).where(watch_turns.c.spool == spool).values(now._asdict()))
    return [*({**turns, spool: now}).values()]


_COLUMNS = [watch_turns.c[name] for name in Turn._fields]
