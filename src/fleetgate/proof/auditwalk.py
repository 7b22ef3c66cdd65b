"""The way along the chain of the audit: every row of the table, in the order of places, each hash computed again.

Decides what is wrong with a row, or where none stands: gone, not what was written there, one of several at one place,
or at no place of the chain. The table is read as whoever reads the audit does (`control.auditchain`), in one look
without a condition, so that nobody is shown a row that was left out here, whatever the table was made into; and no
index may have what the table has not. What was signed of it is compared by `proof.audit`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import func

from fleetgate.control.auditchain import CHAINED, AuditLink, as_written, audit_link, rows_query
from fleetgate.control.auditheads import beginning
from fleetgate.control.heads import NO_LINK, SignedAuditHead
from fleetgate.control.schema import RESTORED, audit
from fleetgate.control.store import Store
from fleetgate.proof.findings import AuditReport, Kind

MAX_FINDINGS = 100
"""Of rows that are not what was written: whoever writes everything anew with another rule breaks every link."""

_AT_ONCE = 10_000  # rows in memory

_BY_HAND = "nobody wrote there but by hand"


class Restore(NamedTuple):
    """A row that says that the records were restored, and until when heads had been signed then."""

    place: int
    chain: str
    until_ms: int


class Walk(NamedTuple):
    """What the way along the chain leaves: the hash of the row it began with, its end, the hashes at the places of
    heads, and the oldest and newest time behind the newest head."""

    chain: str
    end: int
    hashes: dict[int, str]
    oldest_ms: int
    newest_ms: int


def restores_of(store: Store) -> list[Restore]:
    """In their order. A row of an earlier release does not say what was signed: then its own time counts."""
    found = []
    for row in _that_say(store, RESTORED):
        until_ms = beginning((row["detail"] or "").encode()).signed_until_ms
        found.append(Restore(row["place"], row["hash"] or "", (row["at_ms"] or 0) if until_ms is None else until_ms))
    return found


def _that_say(store: Store, action: str) -> list[dict[str, Any]]:
    """The rows of this action that have a place, in their order."""
    has_place = func.typeof(audit.c.place) == "integer"
    query = rows_query().where(audit.c.action == action, has_place).order_by(audit.c.place)
    return [as_written(row) for row in store.rows(query)]


def walk_along(store: Store, heads: list[SignedAuditHead], restores: list[Restore], report: AuditReport) -> Walk:
    """Counts and tells in `report`. Raises ControlAway."""
    begin = restores[-1].place if restores else 1
    places = {signed.head.place for signed in heads}
    chain, place, link, broken = "", 0, NO_LINK, 0
    hashes: dict[int, str] = {}
    times: list[int] = []
    for at, rows in groupby(_placed(store, report), key=itemgetter(0)):
        row, count = _choose(rows, link)
        if at != place + 1:
            gone = f"row {place + 1} is" if at == place + 2 else f"rows {place + 1} to {at - 1} are"
            report.find(Kind.MISSING, place + 1, f"{gone} gone")
        elif not row.follows(link):
            broken += 1
            if broken <= MAX_FINDINGS:
                report.find(Kind.ALTERED, at, _not_what_was_written(at))
        if count > 1:
            broken += 1
            if broken <= MAX_FINDINGS:
                report.find(Kind.ALTERED, at, f"{_stand(count)} at one place: all but one were added by hand")
        place, link = at, row.hash
        if place == begin:
            chain = link
        if place in places:
            hashes[place] = link
            times = []
        else:
            times = [min([row.at_ms, *times]), max([row.at_ms, *times])]
    if broken > MAX_FINDINGS:
        report.find(Kind.ALTERED, None, f"nor are {broken - MAX_FINDINGS} more rows what was written there")
    oldest_ms, newest_ms = times or (0, 0)
    return Walk(chain, place, hashes, oldest_ms, newest_ms)


def check_indexes(store: Store, report: AuditReport) -> None:
    """Whoever reads some rows of the audit may be given what an index has of them."""
    if faults := store.faults(audit):
        report.find(Kind.ALTERED, None, f"its table and the indexes of that are not in order: {faults[0]}")


def _placed(store: Store, report: AuditReport) -> Iterator[tuple[int, AuditLink]]:
    """Every row from place 1 on. Those elsewhere, which whoever reads the audit sees too, are told at the end."""
    before = without = first = 0
    for row in map(audit_link, store.each(rows_query().order_by(audit.c.place), _AT_ONCE)):
        report.rows += 1
        if row.place is None:
            without += 1
        elif row.place < 1:
            first = first if before else row.place
            before += 1
        else:
            yield row.place, row
    if before:
        report.find(Kind.ALTERED, first, f"{_stand(before)} before the first place: {_BY_HAND}")
    if without:
        report.find(Kind.ALTERED, None, f"{_stand(without)} where the place is no whole number: {_BY_HAND}")


def _stand(rows: int) -> str:
    return f"{rows} rows stand" if rows > 1 else "a row stands"


def _choose(rows: Iterator[tuple[int, AuditLink]], link: str) -> tuple[AuditLink, int]:
    """Of the rows at one place the one that the chain goes on with, and how many they are: one, unless somebody made
    the table anew, without its key."""
    (_, chosen), count = next(rows), 1
    for _, row in rows:
        count += 1
        if row.follows(link) and not chosen.follows(link):
            chosen = row
    return chosen, count


def _not_what_was_written(place: int) -> str:
    before = "" if place == 1 else ", or the hash before it is another one"
    return f"what stands there is not what was written there: it was changed, added or moved{before}"


def note_former(store: Store, report: AuditReport) -> None:
    for row in _that_say(store, CHAINED):
        if row["place"] > 1:
            before = f"rows 1 to {row['place'] - 1} were written before there was a chain"
            report.notes.append(f"{before}, and chained later")
