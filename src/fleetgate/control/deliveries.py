"""Which alerts a webhook has been told: what a load that starts again must not tell again, and what it still must.

Load writes it. An endpoint is named by the SHA-256 of its URL, which may be a secret of the receiver. These rows are of
no device: they have no revision and no audit. What is told to whom is decided by `load.webhooks`.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import delete, insert, select

from fleetgate.control.schema import webhook_deliveries
from fleetgate.control.store import Store, Write

ACTOR = "load"
_BEGUN = ""  # the row that says since when the endpoint is told anything

_table = webhook_deliveries


class Told(NamedTuple):
    begun_at_ms: int
    deliveries: frozenset[str]


def told(store: Store, endpoint: str) -> Told:
    """Since when, and what already; one that was never seen begins now. Raises ControlAway."""
    rows = store.rows(select(_table.c.delivery, _table.c.at_ms).where(_table.c.endpoint == endpoint))
    known = {row.delivery: row.at_ms for row in rows}
    if _BEGUN not in known:
        known[_BEGUN] = store.clock.now_ms()
        with store.write(ACTOR) as write:
            _insert(write, endpoint, _BEGUN)
    return Told(known.pop(_BEGUN), frozenset(known))


def note_told(store: Store, endpoint: str, delivery: str, forget_before_ms: int) -> None:
    """Raises ControlAway."""
    with store.write(ACTOR) as write:
        _insert(write, endpoint, delivery)
        old = (_table.c.at_ms < forget_before_ms) & (_table.c.delivery != _BEGUN)
        write.execute(delete(_table).where(_table.c.endpoint == endpoint, old))


def _insert(write: Write, endpoint: str, delivery: str) -> None:
    values = {"endpoint": endpoint, "delivery": delivery, "at_ms": write.now_ms}
    write.execute(insert(_table).prefix_with("OR IGNORE"), values)
