"""Released events against the held rows that they are copies of, and against the decisions on record.

The rows of `held_events` are hashed with their segment, and a copy is nothing but such a row with a decision's name on
it: so the copies of a segment must have the hash of the held rows at their places, be as many as `releases` says, and
bear the name of a decision that gave back just these. What load has copied and not noted yet, because it is at it or
was ended there, is a note. What is to be released and is not there any more, load copies again: nothing is lost by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleetgate.control.releases import Release
from fleetgate.load.clickhouse import ClickHouse
from fleetgate.load.release import IS_COPY
from fleetgate.load.rowshash import hash_query
from fleetgate.proof.findings import Kind, Report
from fleetgate.proof.rows import BATCH_ROWS

_OF = "spool = {spool:String} AND segment >= {first:UInt64} AND segment <= {last:UInt64}"
_COPIES = f"""
SELECT segment, decision, tenant, device_id, count(), toUnixTimestamp64Milli(min(received_at)),
       toUnixTimestamp64Milli(max(received_at))
FROM events WHERE {_OF} AND {IS_COPY} GROUP BY segment, decision, tenant, device_id
"""  # noqa: S608  texts of ours
_NOTED = f"""
SELECT segment, decision, tenant, device_id, sum(most) FROM
    (SELECT segment, decision, tenant, device_id, received_day, max(events) AS most FROM releases WHERE {_OF}
     GROUP BY segment, decision, tenant, device_id, received_day)
GROUP BY segment, decision, tenant, device_id
"""  # noqa: S608  texts of ours
_BLANKED = f"(SELECT * REPLACE ('' AS decision) FROM events WHERE {_OF} AND events.{IS_COPY})"  # noqa: S608
_NOT_COPIED = (
    "(segment, record_offset, event_index) NOT IN "  # noqa: S608
    f"(SELECT segment, record_offset, event_index FROM events WHERE {_OF} AND {IS_COPY})"
)


class _Copies(NamedTuple):
    """Of one device in one segment, by one decision: how many, and when they were received (Unix ms)."""

    events: int
    first_ms: int
    last_ms: int


_Key = tuple[int, str, str, str]
"""Segment, decision, tenant, device."""


def check_released(
    clickhouse: ClickHouse, spool: str, segments: Sequence[int], decisions: Mapping[str, Release] | None, report: Report
) -> None:
    """Of these segments. `decisions` are those on record, by name; None where they cannot be asked.

    Raises ClickHouseAway.
    """
    if not segments:
        return
    within: dict[str, str | int] = {"spool": spool, "first": min(segments), "last": max(segments)}
    copies = {_key(row): _Copies(*map(int, row[4:])) for row in clickhouse.rows(_COPIES, within)}
    noted = {_key(row): int(row[4]) for row in clickhouse.rows(_NOTED, within)}
    by_segment: dict[int, set[_Key]] = defaultdict(set)
    for key in copies.keys() | noted.keys():
        by_segment[key[0]].add(key)
    batch: list[int] = []
    size = 0
    for segment in sorted(by_segment.keys() & set(segments)):
        for key in sorted(by_segment[segment]):
            _check_count(spool, key, copies.get(key), noted.get(key, 0), decisions, report)
        rows = sum(copies[key].events for key in by_segment[segment] if key in copies)
        if batch and size + rows > BATCH_ROWS:
            _check_rows(clickhouse, spool, batch, report)
            batch, size = [], 0
        batch.append(segment)
        size += rows
    if batch:
        _check_rows(clickhouse, spool, batch, report)
    if decisions is None and copies:
        report.notes.append(f"spool {spool}: the control records cannot be asked who released events of it")


def _key(row: Sequence[object]) -> _Key:
    segment, decision, tenant, device = row[:4]
    return int(str(segment)), str(decision), str(tenant), str(device)


def _check_count(
    spool: str,
    key: _Key,
    copies: _Copies | None,
    noted: int,
    decisions: Mapping[str, Release] | None,
    report: Report,
) -> None:
    segment, decision, tenant, device = key
    count = copies.events if copies is not None else 0
    who = f"{tenant}/{device} that decision {decision} released"
    wrong = _why_not(key, copies, decisions)
    if wrong:
        report.find(Kind.ADDED, spool, segment, f"events has {count} events of {who}: {wrong}", "events")
    elif count < noted:
        what = f"events has {count} of the {noted} events of {who}"
        report.find(Kind.MISSING, spool, segment, what, "events")
    elif count > noted:
        report.notes.append(f"spool {spool}: segment {segment}: {who}: load is at it ({count - noted} events)")


def _why_not(key: _Key, copies: _Copies | None, decisions: Mapping[str, Release] | None) -> str:
    if decisions is None or copies is None:
        return ""
    _, decision, tenant, device = key
    release = decisions.get(decision)
    if release is None:
        return "the control records have no such decision"
    if (release.tenant, release.device_id) != (tenant, device):
        return f"that decision is about {release.tenant}/{release.device_id}"
    if not release.from_ms <= copies.first_ms <= copies.last_ms < release.until_ms:
        return "that decision is not about all that was held then"
    return ""


def _check_rows(clickhouse: ClickHouse, spool: str, segments: list[int], report: Report) -> None:
    within: dict[str, str | int] = {"spool": spool, "first": segments[0], "last": segments[-1]}
    copied, held = (
        {int(segment): (int(count), str(text)) for segment, count, text in clickhouse.rows(query, within)}
        for query in (hash_query("held_events", source=_BLANKED), hash_query("held_events", _NOT_COPIED))
    )
    for segment in segments:
        found, there = copied.get(segment, (0, "")), held.get(segment, (0, ""))
        if found != there:
            kind = Kind.ADDED if found[0] > there[0] else Kind.ALTERED
            what = f"the {found[0]} released rows of this segment in events are not copies of the {there[0]} held there"
            report.find(kind, spool, segment, what, "events")
