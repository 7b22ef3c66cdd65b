"""One segment into ClickHouse, so that any repetition changes nothing.

Decides what "already there" means. Three nets, one behind the other:

1. A segment that has its row in `segments` is completely loaded: that row is written last.
2. Of a segment that may have been tried before, only the rows are inserted whose places are not there (missing.py), and
   the rollups are completed from a recount (rollups.py), as a try may have ended between a table and its views. Neither
   asks what ClickHouse remembers: it never syncs its memory of tokens, and a power cut takes the end of it.
3. Every insert carries a token of segment, table, day and ClickHouse's life (incarnation.py). So an insert that still
   comes after its sender has given up, or ended, is dropped if a repetition was there before it.

Rows that ClickHouse refuses for their content are told apart from the others by isolation.py. When to try again is
decided by loader.py.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from fleetgate import fault
from fleetgate.load.absent import absent
from fleetgate.load.arrow import MILLISECONDS
from fleetgate.load.chain import Chain, ChainRow
from fleetgate.load.chainmemory import ChainMemory
from fleetgate.load.clickhouse import ClickHouse, Parameters, Refused
from fleetgate.load.columns import Rows, SegmentRows
from fleetgate.load.counts import Counts
from fleetgate.load.incarnation import incarnation
from fleetgate.load.isolation import Refusal, insert_apart, without
from fleetgate.load.missing import missing_rows, rows_there
from fleetgate.load.rollups import complete_rollups, wait_for_quiet
from fleetgate.load.unknown import UnknownNames
from fleetgate.spool.reader import Segment

HIDDEN = -1
"""Number of the refusal that is not ClickHouse's: it took rows that it then does not have."""

SetAside = Callable[[list[Refusal]], None]
"""Keeps the segment of rows that ClickHouse refused, durably, before the others count as loaded. It is called with none
where all were taken."""


class Inserts:
    def __init__(self, clickhouse: ClickHouse, counts: Counts, spool: Path) -> None:
        """`spool` is the spool's directory, where the end of the chain is remembered."""
        self._clickhouse = clickhouse
        self._counts = counts
        self.chain = Chain(clickhouse, ChainMemory(spool / "chain.json"))

    def unknown_names(self) -> UnknownNames:
        """What the table `unknown_names` has. Raises ClickHouseAway."""
        kept: dict[str, set[str]] = {}
        for tenant, name in self._clickhouse.rows("SELECT DISTINCT tenant, name FROM unknown_names"):
            kept.setdefault(tenant, set()).add(name)
        return UnknownNames(kept)

    def loaded(self, spool: str, segment: int, sha256: str = "") -> str | None:
        """The SHA-256 (hex) under which this segment is completely loaded; None when it is not. Where there are
        several (see `insert`) it is `sha256`, or else the newest."""
        found = self._clickhouse.rows(
            "SELECT sha256 FROM segments WHERE spool = {spool:String} AND segment = {segment:UInt64} "
            "ORDER BY sha256 = {sha256:String} DESC, place DESC LIMIT 1",
            {"spool": spool, "segment": segment, "sha256": sha256},
        )
        return str(found[0][0]) if found else None

    def insert(
        self,
        segment: Segment,
        rows: SegmentRows,
        names: UnknownNames,
        previous: str,
        now_ms: int,
        tried: bool,
        stored: str | None,
        replaced: set[str],
        set_aside: SetAside,
    ) -> bool:
        """Inserts all rows of the segment that are not there, its row in `segments` last.

        `previous` is the SHA-256 (hex) of the segment before it, `tried` whether an earlier try may have got anywhere.
        `stored` is the SHA-256 under which a part of it is loaded: then what is added gets a row of its own in
        `segments`, with that as its predecessor, the counts of what was added, and the hashes of all its rows together.
        `replaced` are the SHA-256 of what a repair replaced by it. False when ClickHouse refused some rows. Raises
        ClickHouseAway, and Refused where the refused rows cannot be told apart.
        """
        self._insert_names(names, now_ms)
        life = incarnation(self._clickhouse, now_ms)
        refused: list[Refusal] = []
        for part in rows.rows:
            token = f"{segment.sha256.hex()}-{part.table}-{part.day}-{life}"
            add = self._complete if tried else self._insert_part
            refused += add(segment, part, token)
        set_aside(refused)
        taken = without(rows, refused)
        row = msgspec.structs.replace(_chain_row(segment, taken, previous, refused), replaces=sorted(replaced))
        if stored is None:
            self._append(row, f"segments-{life}", now_ms)
            return not refused
        added, told = self._untold(segment, taken)
        if any(added.values()):
            counts: dict[str, Any] = {"messages": added["raw_messages"], "transitions": 0, **added}
            row = msgspec.structs.replace(row, previous_sha256=stored, **counts)
            self._append(row, f"segments-after-{told}-{life}", now_ms)
        return not refused

    def _complete(self, segment: Segment, part: Rows, token: str) -> list[Refusal]:
        """Inserts what is not there of rows that were tried before, whenever and under whatever token."""
        count = part.rows.num_rows
        if not rows_there(self._clickhouse, segment, part):  # as at the first start on a full spool
            refused = self._insert_part(segment, part, token)
            left = count - rows_there(self._clickhouse, segment, part)
        else:
            refused = self._add(segment, part, token)
            left = missing_rows(self._clickhouse, segment, part).rows.num_rows
        if left > sum(refusal.rows for refusal in refused):
            raise Refused(
                HIDDEN,
                f"ClickHouse says that it has rows of {part.table} which are not there: restart it, then "
                "`fleetgate spool retry`",
            )
        return refused

    def _add(self, segment: Segment, part: Rows, token: str) -> list[Refusal]:
        """Inserts what is not there of rows some of which are."""
        missing = missing_rows(self._clickhouse, segment, part)
        count = missing.rows.num_rows
        if count == part.rows.num_rows:  # what is there was made before a repair
            return self._insert_part(segment, part, token)
        # Whoever inserted the others may not be done with the views, or with what seems to be missing.
        wait_for_quiet(self._clickhouse)
        left = part._replace(rows=missing.rows)
        refused = self._insert_part(segment, left, f"{token}-{missing.name}") if count else []
        if part.table == "events":
            complete_rollups(self._clickhouse, segment.header.spool.hex(), segment.header.segment, part.day)
        return refused

    def _insert_part(self, segment: Segment, part: Rows, token: str) -> list[Refusal]:
        """Inserts rows of which none is there; gives back those that ClickHouse refuses."""
        try:
            self._insert(part.table, part.rows, token)
        except Refused:
            if missing_rows(self._clickhouse, segment, part).rows.num_rows != part.rows.num_rows:
                raise  # the table has them: it was a view that refused, and cutting would double them
            return insert_apart(self._insert, part.table, part.rows, token)
        return []

    def _untold(self, segment: Segment, taken: SegmentRows) -> tuple[dict[str, int], int]:
        """Rows by table that are there and that no row of `segments` counts yet, whenever they came; and how many are
        counted: two retries may add equally many, and their tokens must differ."""
        of_it = "WHERE spool = {spool:String} AND segment = {segment:UInt64}"
        parameters: Parameters = {"spool": segment.header.spool.hex(), "segment": segment.header.segment}
        sums = ", ".join(f"sum({table})" for table in taken.counts)
        [told] = self._clickhouse.rows(f"SELECT {sums} FROM segments {of_it}", parameters)  # noqa: S608  names of ours
        [[ranges]] = self._clickhouse.rows(f"SELECT count() FROM received_ranges {of_it}", parameters)  # noqa: S608
        there = {**taken.counts, "received_ranges": int(ranges)}  # a repair makes others, and those from before stay
        untold = {table: max(0, there[table] - int(known)) for table, known in zip(taken.counts, told, strict=True)}
        return untold, sum(map(int, told))

    def _append(self, row: ChainRow, name: str, now_ms: int) -> None:
        start = time.perf_counter()
        self.chain.append(row, f"{row.sha256}-{name}", now_ms)
        fault.point("insert.segments")
        self._counts.insert_seconds.labels("segments").observe(time.perf_counter() - start)
        self._counts.rows.labels("segments").inc()

    def _insert(self, table: str, rows: pa.Table, token: str) -> None:
        start = time.perf_counter()
        self._clickhouse.insert(table, rows, token)
        fault.point(f"insert.{table}")
        self._counts.insert_seconds.labels(table).observe(time.perf_counter() - start)
        self._counts.rows.labels(table).inc(rows.num_rows)

    def _insert_names(self, names: UnknownNames, now_ms: int) -> None:
        unsaved = names.unsaved()
        if not unsaved:
            return
        rows = {
            "tenant": pa.array([tenant for tenant, _ in unsaved], type=pa.string()),
            "name": pa.array([name for _, name in unsaved], type=pa.string()),
            "first_received_at": pa.array([now_ms] * len(unsaved), type=MILLISECONDS),
        }
        token = f"names-{hashlib.sha256(msgspec.json.encode(unsaved)).hexdigest()}"
        self._clickhouse.insert("unknown_names", pa.table(rows), token)
        names.saved()


def _chain_row(segment: Segment, taken: SegmentRows, previous: str, refused: list[Refusal]) -> ChainRow:
    found: dict[str, Any] = {**taken.counts, **{f"{table}_hash": text for table, text in taken.hashes.items()}}
    found |= {f"{table}_absent": spans for table, spans in absent(segment, taken, refused).items()}
    return ChainRow(
        spool=segment.header.spool.hex(),
        segment=segment.header.segment,
        sha256=segment.sha256.hex(),
        previous_sha256=previous,
        bytes=segment.size,
        opened_at=segment.header.opened_at,
        first_received_at=taken.first_received_at,
        last_received_at=taken.last_received_at,
        messages=len(segment.messages),
        transitions=len(segment.transitions),
        damaged=len(segment.damaged) + len(segment.lost) + len(taken.undecodable),
        refused=sum(refusal.rows for refusal in refused),
        replaces=[],
        **found,
    )
