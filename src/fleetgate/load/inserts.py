"""One segment into ClickHouse, so that any repetition changes nothing.

Decides what "already there" means. Three nets, one behind the other:

1. A segment that has its row in `segments` is completely loaded: that row is written last.
2. Every insert carries a token of segment, table and day. ClickHouse drops a repetition within its window, and with it
   completes rollups that a crash had left out.
3. A segment that may be older than the window is counted in each table first.

A segment that was set aside and is tried again, or that a repair changed, may have been inserted in part under another
token: of it only the rows are inserted whose places are not there (missing.py). Rows that ClickHouse refuses for their
content are told apart from the others by isolation.py.

When to try again is decided by loader.py.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from fleetgate import fault
from fleetgate.load.absent import absent
from fleetgate.load.chain import Chain, ChainRow
from fleetgate.load.chainmemory import ChainMemory
from fleetgate.load.clickhouse import ClickHouse, Parameters, Refused
from fleetgate.load.columns import MILLISECONDS, Rows, SegmentRows
from fleetgate.load.counts import Counts
from fleetgate.load.isolation import Cuts, Refusal, insert_apart, without
from fleetgate.load.missing import missing_rows
from fleetgate.load.unknown import UnknownNames
from fleetgate.spool.reader import Segment

WINDOW_SEGMENTS = 1_000
"""So many segments may have been loaded since a first try and its token is still known: the tables' window is 10,000
blocks, and a segment is a few blocks (one a day and million rows)."""

PARTIAL = -1
"""Number of the refusal that is not ClickHouse's: some rows of a segment are there, and the window no longer tells
which."""


class Apart(NamedTuple):
    """For rows that ClickHouse refuses: where they were cut from the others, and who keeps their segment, durably,
    before the others count as loaded. `set_aside` is called with none where all were taken."""

    cuts: Cuts
    set_aside: Callable[[list[Refusal]], None]


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
        several (see `insert_missing`) it is `sha256`, or else the newest."""
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
        repeated: bool,
        apart: Apart,
    ) -> bool:
        """Inserts all rows of the segment, its row in `segments` last. `previous` is the SHA-256 (hex) of the segment
        before it, `repeated` whether an earlier try may have got anywhere. Raises ClickHouseAway, and Refused where
        the refused rows cannot be told apart. False when some were."""
        self._insert_names(names, now_ms)
        count_first = repeated and self._may_be_behind_window(segment)
        refused: list[Refusal] = []
        for part in rows.rows:
            if not (count_first and self._is_there(segment, part)):
                token = f"{segment.sha256.hex()}-{part.table}-{part.day}"
                refused += self._insert_part(segment, part, token, apart.cuts)
        apart.set_aside(refused)
        self._append(_chain_row(segment, without(rows, refused), previous, refused), "segments", now_ms)
        apart.cuts.done()
        return not refused

    def insert_missing(
        self,
        segment: Segment,
        rows: SegmentRows,
        names: UnknownNames,
        previous: str,
        now_ms: int,
        stored: str | None,
        replaced: set[str],
        apart: Apart,
    ) -> bool:
        """Inserts the rows of a parked or repaired segment that are not there, whatever was tried before.

        `stored` is the SHA-256 under which a part of it is loaded: then what is added gets a row of its own in
        `segments`, with that as its predecessor, the counts of what was added, and the hashes of all its rows together.
        `replaced` are the SHA-256 of what a repair replaced by it. False when ClickHouse refused some rows. Raises
        ClickHouseAway, Refused.
        """
        self._insert_names(names, now_ms)
        sha256 = segment.sha256.hex()
        repaired = bool(replaced or segment.lost)
        # With a row in `segments` all but what was refused is complete; what was cut never had the token of the whole.
        token_known = stored is None and not repaired
        token_known = token_known and self._loaded_since(segment.header.opened_at) <= WINDOW_SEGMENTS
        refused: list[Refusal] = []
        for part in rows.rows:
            missing = missing_rows(self._clickhouse, segment, part)
            token = f"{sha256}-{part.table}-{part.day}"
            complete = token_known and not missing.rows.num_rows and not apart.cuts.of(token)
            if missing.rows.num_rows == part.rows.num_rows or complete:
                # Where all is there it completes the rollups, see net 2.
                refused += self._insert_part(segment, part, token, apart.cuts)
            elif missing.rows.num_rows:
                left = part._replace(rows=missing.rows)
                refused += self._insert_part(segment, left, f"{token}-{missing.name}", apart.cuts)
        apart.set_aside(refused)
        taken = without(rows, refused)
        row = msgspec.structs.replace(_chain_row(segment, taken, previous, refused), replaces=sorted(replaced))
        if stored is None:
            self._append(row, "segments", now_ms)
        else:
            added, told = self._untold(segment, taken)
            if any(added.values()):
                counts: dict[str, Any] = {"messages": added["raw_messages"], "transitions": 0, **added}
                row = msgspec.structs.replace(row, previous_sha256=stored, **counts)
                self._append(row, f"segments-after-{told}", now_ms)
        apart.cuts.done()
        return not refused

    def _insert_part(self, segment: Segment, part: Rows, token: str, cuts: Cuts) -> list[Refusal]:
        """Inserts rows of which none, or all under this token, are there; gives back those that ClickHouse refuses."""
        if not cuts.of(token):
            try:
                self._insert(part.table, part.rows, token)
            except Refused:
                if missing_rows(self._clickhouse, segment, part).rows.num_rows != part.rows.num_rows:
                    raise  # the table has them: it was a view that refused, and cutting would double them
            else:
                return []
        return insert_apart(self._insert, part.table, part.rows, token, cuts)

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

    def _loaded_since(self, at_ms: int) -> int:
        """How many segments, of any spool, were loaded since then."""
        [[loaded]] = self._clickhouse.rows(
            "SELECT count() FROM segments WHERE toUnixTimestamp64Milli(loaded_at) > {at:Int64}", {"at": at_ms}
        )
        return int(loaded)

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

    def _may_be_behind_window(self, segment: Segment) -> bool:
        """Whether many segments, of any spool, were loaded since the one before this."""
        [[since]] = self._clickhouse.rows(
            "SELECT count() FROM segments WHERE loaded_at > "
            "(SELECT max(loaded_at) FROM segments WHERE spool = {spool:String} AND segment < {segment:UInt64})",
            {"spool": segment.header.spool.hex(), "segment": segment.header.segment},
        )
        return int(since) > WINDOW_SEGMENTS

    def _is_there(self, segment: Segment, part: Rows) -> bool:
        """True when all rows of `part` are in the table, False when none is. Raises Refused for anything between."""
        [[found]] = self._clickhouse.rows(
            f"SELECT count() FROM {part.table} WHERE spool = {{spool:String}} AND segment = {{segment:UInt64}} "  # noqa: S608  a table of ours
            "AND toYYYYMMDD(received_at) = toYYYYMMDD(toDate({day:UInt16}))",
            {"spool": segment.header.spool.hex(), "segment": segment.header.segment, "day": part.day},
        )
        if int(found) not in (0, part.rows.num_rows):
            raise Refused(
                PARTIAL, f"{part.table} has {found} of {part.rows.num_rows} rows, and their token is forgotten"
            )
        return int(found) != 0


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
