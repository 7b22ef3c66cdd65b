"""The rows of a spool's segments against the counts and hashes in `segments`, computed by ClickHouse itself.

Decides what of a table counts as gone by age, and which rows belong to no segment. The canonical form of a hash is
decided by `load.rowshash`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fleetgate.load.chain import ChainRow
from fleetgate.load.clickhouse import ClickHouse
from fleetgate.load.release import IS_COPY
from fleetgate.load.rowshash import FORMS, hash_query
from fleetgate.proof.findings import Kind, Report
from fleetgate.proof.ranges import different_ranges

BATCH_ROWS = 300_000
"""Hashed in one query: ClickHouse holds them in memory, up to 100 MB; a segment has at most 250,000 events."""

RANGES = "received_ranges"
"""Counted, and not hashed: its rows follow from those of the other tables (ranges.py), and a repair adds to them."""

_RANGES_QUERY = f"""
SELECT segment, count(), '' FROM {RANGES}
WHERE spool = {{spool:String}} AND segment >= {{first:UInt64}} AND segment <= {{last:UInt64}}
GROUP BY segment
"""  # noqa: S608  a table of ours

# From the stored row itself: with a lost peer its spans may be too many for a statement.
_CAME_SINCE = (
    "arrayExists(span -> record_offset >= span.1 AND record_offset <= span.2, (SELECT any({}_absent) FROM segments "
    "WHERE spool = {{spool:String}} AND place = {{place:UInt64}} AND link = {{link:String}}))"
)

_NOT_BEFORE = "AND NOT (spool = '' AND segment = 0 AND outcome = 'before_ledger')"

MAX_STRANGERS = 1_000
"""Segments without a row in `segments` are named one by one up to here, in each table."""

DAY_MS = 24 * 3600 * 1000


def _copies(table: str) -> str:
    """What `events` has of released events is no part of what was loaded: released.py has it."""
    return IS_COPY if table == "events" else ""


class Expected(NamedTuple):
    """All of one segment: its rows of the chain in order, the counts of which add up. Each has the hashes of all rows
    that were there when it was written."""

    segment: int
    rows: list[ChainRow]

    def count(self, table: str) -> int:
        return sum(getattr(row, table) for row in self.rows)

    def hash(self, table: str) -> str:
        found: str = getattr(self.rows[-1], f"{table}_hash")
        return found

    @property
    def hashed(self) -> bool:
        return self.rows[-1].place > 0


class Keeping(NamedTuple):
    """`raw_days` is how long raw_messages keeps its rows."""

    now_ms: int
    raw_days: int


def check_rows(
    clickhouse: ClickHouse, spool: str, segments: Sequence[Expected], keeping: Keeping, report: Report
) -> None:
    """Every table of every segment. Raises ClickHouseAway."""
    expired = unhashed = 0
    for batch in _batches(segments):
        for table in (*FORMS, RANGES):
            parameters: dict[str, str | int] = {"spool": spool, "first": batch[0].segment, "last": batch[-1].segment}
            answer = clickhouse.rows(
                _RANGES_QUERY if table == RANGES else hash_query(table, _copies(table)), parameters
            )
            found = {int(segment): (int(count), str(text)) for segment, count, text in answer}
            for segment in batch:
                count, text = found.get(segment.segment, (0, ""))
                report.rows += count
                if table == "raw_messages" and _is_expired(clickhouse, spool, segment, count, keeping):
                    expired += 1
                else:
                    _compare(spool, segment, table, count, text, report)
        _check_ranges(clickhouse, spool, batch, report)
        for segment in batch:
            _check_earlier(clickhouse, spool, segment, keeping, report)
        unhashed += sum(not segment.hashed for segment in batch)
    if expired:
        report.notes.append(
            f"spool {spool}: of {expired} segments the signed bytes are gone by age, raw_days = {keeping.raw_days}: "
            "their other rows were checked"
        )
    if unhashed:
        report.notes.append(
            f"spool {spool}: {unhashed} segments were loaded by a version that kept no hashes: only counts were checked"
        )


def _check_ranges(clickhouse: ClickHouse, spool: str, batch: Sequence[Expected], report: Report) -> None:
    """Only of segments whose other rows are good and all there: from these it follows."""
    wrong = {finding.segment for finding in report.findings if finding.spool == spool}
    different = different_ranges(clickhouse, spool, batch[0].segment, batch[-1].segment)
    for segment in batch:
        runs = different.get(segment.segment, 0)
        if runs and segment.hashed and not segment.rows[-1].refused and segment.segment not in wrong:
            what = f"{RANGES} does not say of this segment what its messages and refusals say ({runs} runs differ)"
            report.find(Kind.ALTERED, spool, segment.segment, what, RANGES)


def _check_earlier(clickhouse: ClickHouse, spool: str, segment: Expected, keeping: Keeping, report: Report) -> None:
    """What each row stood for before others of its segment were appended: nothing of it may have changed since."""
    for number, row in enumerate(segment.rows[:-1], 1):
        if not row.place:
            continue
        for table in FORMS:
            parameters: dict[str, str | int] = {"spool": spool, "first": row.segment, "last": row.segment}
            parameters |= {"place": row.place, "link": row.link}
            answer = clickhouse.rows(
                hash_query(table, f"{_CAME_SINCE.format(table)} OR {_copies(table) or 0}"), parameters
            )
            count, text = (int(answer[0][1]), str(answer[0][2])) if answer else (0, "")
            so_far = Expected(row.segment, segment.rows[:number])
            expired = table == "raw_messages" and _is_expired(clickhouse, spool, so_far, count, keeping)
            if not expired and (count, text) != (so_far.count(table), getattr(row, f"{table}_hash")):
                what = (
                    f"the rows of this segment in {table} that place {row.place} of the chain stands for are not those "
                    f"that were loaded then, whatever was appended since ({count} rows, loaded were "
                    f"{so_far.count(table)})"
                )
                report.find(Kind.ALTERED, spool, row.segment, what, table)


def _compare(spool: str, segment: Expected, table: str, count: int, text: str, report: Report) -> None:
    expected, number = segment.count(table), segment.segment
    if count != expected:
        kind, less = (Kind.MISSING, "fewer") if count < expected else (Kind.ADDED, "more")
        what = f"{table} has {count} rows of this segment, {abs(count - expected)} {less} than were loaded ({expected})"
        report.find(kind, spool, number, what, table)
    elif table != RANGES and segment.hashed and text != segment.hash(table):
        what = f"the {count} rows of this segment in {table} are not those that were loaded: their hash is another one"
        report.find(Kind.ALTERED, spool, number, what, table)


def _is_expired(clickhouse: ClickHouse, spool: str, segment: Expected, count: int, keeping: Keeping) -> bool:
    """Whether age explains that only `count` signed messages of the segment are there.

    ClickHouse drops whole parts, at a time of its choice after the oldest row has come of age. A segment's rows of one
    day came in one part: with some of the first day there, somebody took the others. One that was inserted in pieces,
    as rows of it were refused or came later, has several.
    """
    received = [row.first_received_at for row in segment.rows if row.first_received_at is not None]
    if count >= segment.count("raw_messages") or not received:
        return False
    if min(received) + keeping.raw_days * DAY_MS > keeping.now_ms:
        return False
    if not count or len(segment.rows) > 1 or segment.rows[0].refused:
        return True
    [[left]] = clickhouse.rows(
        "SELECT count() FROM raw_messages WHERE spool = {spool:String} AND segment = {segment:UInt64} "
        "AND toYYYYMMDD(received_at) = toYYYYMMDD(toDate({day:UInt16}))",
        {"spool": spool, "segment": segment.segment, "day": min(received) // DAY_MS},
    )
    return not int(left)


def _batches(segments: Sequence[Expected]) -> Iterator[list[Expected]]:
    """Segments of neighbouring numbers, with BATCH_ROWS rows or one segment each."""
    batch: list[Expected] = []
    size = 0
    for segment in segments:
        rows = sum(segment.count(table) for table in FORMS)
        if batch and size + rows > BATCH_ROWS:
            yield batch
            batch, size = [], 0
        batch.append(segment)
        size += rows
    if batch:
        yield batch


class Stranger(NamedTuple):
    """Rows of a table whose segment has no row in `segments`; when the last of them was received, in Unix ms."""

    table: str
    spool: str
    segment: int
    rows: int
    received_at_ms: int


def strangers(clickhouse: ClickHouse, table: str, spool: str) -> list[Stranger]:
    """Of one spool or of all (""), MAX_STRANGERS and one more at most."""
    sql = (
        "SELECT spool, segment, count(), toUnixTimestamp64Milli(max(received_at)) "  # noqa: S608  a table of ours
        f"FROM {table} WHERE ({{spool:String}} = '' OR spool = {{spool:String}}) "
        "AND (spool, segment) NOT IN (SELECT spool, segment FROM segments) "
        f"{_NOT_BEFORE if table == RANGES else ''} "
        f"GROUP BY spool, segment ORDER BY spool, segment LIMIT {MAX_STRANGERS + 1}"
    )
    return [
        Stranger(table, str(found), int(segment), int(rows), int(at_ms))
        for found, segment, rows, at_ms in clickhouse.rows(sql, {"spool": spool})
    ]
