"""Which spools there were, and how far each was loaded: what a spool's own disk cannot say of itself.

Load writes it (a spool before its first segment, its position about once a second), an edge reads it when it starts: an
empty disk in the place of one that load knows is a replaced disk, and one that ends before what was loaded of it is an
older copy. The newest time of receipt that was loaded says more than a clock which may be behind. What follows from
that is decided by `spool.home`. These rows are of no device: they have no revision and no audit. Replay windows live in
one edge, so one edge is assumed for one control database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import insert, select, update

from fleetgate.control.schema import spools
from fleetgate.control.store import Store, Write

ACTOR = "load"


_Known = TypeVar("_Known")


def known_spools(store: Store, form: Callable[[str, int, bool, int], _Known]) -> list[_Known] | None:
    """All of them, each given to `form`, which is the reader's; None where these records were made before spools were
    kept. Raises ControlAway.

    Of each: its identity in hex, the number of the last segment in ClickHouse that load told of, whether another was
    begun in its place, and the latest time of receipt among what was loaded, 0 where that is not known.
    """
    if not store.has_table(spools):
        return None
    rows = store.rows(select(spools).order_by(spools.c.begun_at_ms, spools.c.spool))
    return [form(row.spool, row.loaded, row.replaced_at_ms is not None, row.newest_received_ms) for row in rows]


def begin_spool(store: Store, spool: str, former: Sequence[str]) -> None:
    """A spool that load has not loaded anything of, in the place of its `former` ones. Raises ControlAway."""
    with store.write(ACTOR) as write:
        _put_on_record(write, spool)
        of_former = update(spools).where(spools.c.spool.in_(former), spools.c.replaced_at_ms.is_(None))
        write.execute(of_former.values(replaced_at_ms=write.now_ms))


def note_loaded(store: Store, spool: str, segment: int, newest_received_ms: int) -> None:
    """Everything up to this segment is in ClickHouse, the newest of it received then. Raises ControlAway."""
    with store.write(ACTOR) as write:
        _put_on_record(write, spool)  # one that an earlier fleetgate began
        for column, value in ((spools.c.loaded, segment), (spools.c.newest_received_ms, newest_received_ms)):
            write.execute(update(spools).where(spools.c.spool == spool, column < value).values({column: value}))


def _put_on_record(write: Write, spool: str) -> None:
    if write.row(select(spools).where(spools.c.spool == spool)) is None:
        write.execute(insert(spools), {"spool": spool, "begun_at_ms": write.now_ms, "loaded": 0})
