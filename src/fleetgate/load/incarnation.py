"""Which life of ClickHouse this is: a random name that is gone when its process ends.

ClickHouse never syncs the list of the tokens it has seen, and writes a token down before its rows have their place. So
within a life its memory of tokens is exact, and after a power cut or a kill it may have forgotten some, or know some
whose rows are not there. A token that has the life in it is never taken for one of another life. What is there of
earlier tries is told by the rows themselves (missing.py).
"""

from __future__ import annotations

import uuid

import pyarrow as pa

from fleetgate.load.arrow import MILLISECONDS
from fleetgate.load.clickhouse import ClickHouse


def incarnation(clickhouse: ClickHouse, now_ms: int) -> str:
    """The name of ClickHouse's life, given to it now if it has none. Raises ClickHouseAway."""
    while not (found := clickhouse.rows("SELECT id FROM incarnation ORDER BY since, id LIMIT 1")):
        row = {"id": pa.array([uuid.uuid4().hex[:16]]), "since": pa.array([now_ms], type=MILLISECONDS)}
        clickhouse.insert("incarnation", pa.table(row), "incarnation")
    return str(found[0][0])
