"""Every segment against its chain, and the chain against what the signer signed, in these steps:

1. heads     signatures, by the audit public key alone
2. chain     places from 1 without a gap, each link computed again
3. signed    at each head's place stands the row that was signed; the chain reaches the newest head
4. numbers   segments without a gap, each naming the file before it
5. rows      counts and hashes of every table, computed by ClickHouse
6. released  copies of held rows that a decision released: each is one, and a person decided it
7. strangers rows of segments that have no row in `segments`

Decides what is a finding and what a note. Parked segments, and which one load has in hand, are known only where the
spool is at hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleetgate.clock import utc
from fleetgate.control.heads import NO_LINK, SignedHead, next_link
from fleetgate.control.releases import Release
from fleetgate.errors import NotFound
from fleetgate.load.chain import ChainRow, chain_rows
from fleetgate.load.clickhouse import ClickHouse
from fleetgate.load.rowshash import FORMS
from fleetgate.proof.findings import Kind, Report
from fleetgate.proof.heads import sort_out
from fleetgate.proof.ranges import from_before
from fleetgate.proof.released import check_released
from fleetgate.proof.rows import MAX_STRANGERS, RANGES, Expected, Keeping, Stranger, check_rows, strangers

FRESH_MS = 600_000
"""Load has its rows signed once a minute; ten times that is no delay any more."""

CLOCKS_MS = 60_000
"""So far the clocks of load and of who verifies may be apart."""

MAX_GAP = 100
"""So many missing numbers in a row are named one by one."""


class Scope(NamedTuple):
    """What is verified: one spool or all (""), and of each the rows of these segments. Chain and heads are always
    verified whole.

    `parked` are (spool, segment) that load set aside. `in_hand` are spools at hand with the segment that load comes to
    next (None: none is sealed); of other spools that is the newest and one, while its rows are fresh. `unsigned` allows
    what no head vouches for: on a gate without a signer, or with segments from before there was a chain. `decisions` by
    which held events were released are those on record, by name; None where the records cannot be asked.
    """

    spool: str = ""
    first: int = 0
    last: int = 2**63 - 1
    parked: frozenset[tuple[str, int]] = frozenset()
    in_hand: Mapping[str, int | None] = MappingProxyType({})
    unsigned: bool = False
    decisions: Mapping[str, Release] | None = None


def verify_segments(
    clickhouse: ClickHouse, heads: Iterable[SignedHead], key: Ed25519PublicKey, keeping: Keeping, scope: Scope
) -> Report:
    """Raises ClickHouseAway; NotFound where there is nothing of that scope."""
    report = Report()
    signed = _heads(heads, key, scope, report)  # 1
    rows: dict[str, list[ChainRow]] = defaultdict(list)
    for row in chain_rows(
        clickhouse, "{spool:String} = '' OR spool = {spool:String}", {"spool": scope.spool}, "spool, place, segment"
    ):
        rows[row.spool].append(row)
    looked_at = 0
    for spool in sorted(rows.keys() | signed.keys()):
        report.spools += 1
        chain = [row for row in rows[spool] if row.place]
        _check_chain(spool, chain, report)  # 2
        _check_signed(spool, chain, signed[spool], report)  # 3
        _check_unsigned(clickhouse, spool, rows[spool], signed[spool], keeping, scope, report)
        segments = _check_numbers(spool, rows[spool], scope, report)  # 4
        _check_unchained(spool, rows[spool], report)
        hashed = [segment for segment in segments if scope.first <= segment.segment <= scope.last]
        check_rows(clickhouse, spool, hashed, keeping, report)  # 5
        check_released(clickhouse, spool, [one.segment for one in hashed], scope.decisions, report)  # 6
        looked_at += len(hashed)
    _check_strangers(clickhouse, rows, keeping, scope, report)  # 7
    _check_before(clickhouse, scope, report)
    if not (looked_at or report.findings):
        raise NotFound(f"nothing is stored of {_in_words(scope)}: nothing was verified")
    return report


def twice(look: Callable[[], Report]) -> Report:
    """What the second `look` finds in places where the first one found something: load goes on meanwhile, and rows of a
    segment in hand or of a retry are there before they are counted.

    Places are compared, and neither counts nor kinds: these change under whoever goes on tampering."""
    report = look()
    if report.findings:
        before, report = {finding.place for finding in report.findings}, look()
        report.findings = [finding for finding in report.findings if finding.place in before]
    return report


def _in_words(scope: Scope) -> str:
    if (scope.spool, scope.first, scope.last) == ("", 0, Scope().last):
        return "any segment"
    which = f"segments {scope.first} to {scope.last}" if scope.last < Scope().last else f"segments from {scope.first}"
    return f"spool {scope.spool}, {which}" if scope.spool else which


def _heads(
    heads: Iterable[SignedHead], key: Ed25519PublicKey, scope: Scope, report: Report
) -> dict[str, list[SignedHead]]:
    good, bad = sort_out((signed for signed in heads if scope.spool in ("", signed.head.spool)), key)
    for signed, why in bad:
        report.find(Kind.SIGNATURE, signed.head.spool, signed.head.segment, why)
    found: dict[str, list[SignedHead]] = defaultdict(list)
    for signed in sorted(set(good), key=lambda signed: (signed.head.spool, signed.head.place, signed.signed_at)):
        found[signed.head.spool].append(signed)
    report.heads = sum(map(len, found.values()))
    return found


def _check_chain(spool: str, chain: Sequence[ChainRow], report: Report) -> None:
    place, link = 0, NO_LINK
    for row in chain:
        who = f"the row of segment {row.segment} in `segments`"
        if row.place == place:
            report.find(Kind.ADDED, spool, row.segment, f"{who} stands at place {place} beside another one")
            continue
        if row.place != place + 1:
            gone = f"place {place + 1}" if row.place == place + 2 else f"places {place + 1} to {row.place - 1}"
            report.find(Kind.MISSING, spool, None, f"the chain lacks {gone}: rows were taken out of `segments`")
        elif row.link != next_link(link, row.digest()):
            what = f"{who} (place {row.place}), or the one before it, is not what load wrote: its link is another one"
            report.find(Kind.ALTERED, spool, row.segment, what)
        place, link = row.place, row.link


def _check_signed(spool: str, chain: Sequence[ChainRow], heads: Sequence[SignedHead], report: Report) -> None:
    at = {row.place: row for row in chain}
    end = max(at, default=0)
    for before, signed in pairwise(heads):
        if before.head.place == signed.head.place and before.head != signed.head:
            what = f"two different heads were signed for place {signed.head.place}"
            report.find(Kind.SIGNATURE, spool, signed.head.segment, what)
    for signed in heads:
        row = at.get(signed.head.place)
        if row is not None and row.head() != signed.head:
            which = f"place {row.place} of the chain (segment {row.segment})"
            what = f"{which} is not what was signed at {utc(signed.signed_at)}"
            report.find(Kind.ALTERED, spool, row.segment, what)
    newest = heads[-1] if heads else None
    if newest is not None and newest.head.place > end:
        what = (
            f"the newest rows of `segments` are cut off: place {newest.head.place} (segment {newest.head.segment}) was "
            f"signed at {utc(newest.signed_at)}, and the chain ends at place {end}"
        )
        report.find(Kind.CUT_OFF, spool, newest.head.segment, what)


def _check_unsigned(
    clickhouse: ClickHouse,
    spool: str,
    rows: Sequence[ChainRow],
    heads: Sequence[SignedHead],
    keeping: Keeping,
    scope: Scope,
    report: Report,
) -> None:
    """Load has signed what it wrote within minutes; what stays without was written by somebody else, or unnoticed."""
    behind = heads[-1].head.place if heads else 0
    unsigned = sum(row.place > behind for row in rows)
    before = sum(not row.place for row in rows)
    report.unsigned += unsigned
    if not unsigned and not before:
        return
    since = "since the newest signed head" if heads else "and no head of this spool is signed"
    what = f"{unsigned} segments were loaded {since}" if unsigned else f"{before} segments are from before the chain"
    what = f"{what}: nothing outside ClickHouse vouches"
    [[oldest_ms, newest_ms]] = clickhouse.rows(
        "SELECT toUnixTimestamp64Milli(min(loaded_at)), toUnixTimestamp64Milli(max(loaded_at)) FROM segments "
        "WHERE spool = {spool:String} AND (place = 0 OR place > {behind:UInt64})",
        {"spool": spool, "behind": behind},
    )
    if scope.unsigned or (_is_fresh(int(oldest_ms), keeping) and _is_fresh(int(newest_ms), keeping)):
        report.notes.append(f"spool {spool}: {what}")
        return
    remedy = (
        "load did not have them signed for 10 minutes, or did not write them: see the log of load, and "
        "fleetgate_load_signer_away; for a gate without a signer, or for what it had before: --unsigned"
    )
    report.find(Kind.UNSIGNED, spool, None, f"{what}: {remedy}")


def _is_fresh(at_ms: int, keeping: Keeping) -> bool:
    """A time to come is none that load wrote."""
    return -CLOCKS_MS <= keeping.now_ms - at_ms <= FRESH_MS


def _check_numbers(spool: str, rows: Sequence[ChainRow], scope: Scope, report: Report) -> list[Expected]:
    """The segments of the spool, in the order of their numbers."""
    ordered = sorted(rows, key=lambda row: row.segment)  # a stable sort: of one segment they stay in the chain's order
    segments = [Expected(number, list(some)) for number, some in groupby(ordered, key=lambda row: row.segment)]
    for before, after in zip([None, *segments], segments, strict=False):
        if before is not None:
            _check_gap(spool, before.segment, after.segment, scope, report)
        files = {row.sha256 for row in after.rows}
        if before is not None and before.segment == after.segment - 1:
            files |= {sha256 for row in before.rows for sha256 in (row.sha256, *row.replaces)}
        else:
            files |= {after.rows[0].previous_sha256}
        for row in after.rows:
            if row.previous_sha256 and row.previous_sha256 not in files:  # empty: load did not know it
                what = (
                    f"its row names {row.previous_sha256[:12]}... as the file before it, which is none of those known"
                )
                report.find(Kind.ALTERED, spool, row.segment, what)
    report.segments += len(segments)
    return segments


def _check_gap(spool: str, before: int, after: int, scope: Scope, report: Report) -> None:
    for number in range(before + 1, min(after, before + 1 + MAX_GAP)):
        if (spool, number) in scope.parked:
            report.notes.append(f"spool {spool}: segment {number} is parked, so nothing of it counts as loaded")
        else:
            what = "it has no row in `segments`: it was never loaded, or its row was taken away"
            report.find(Kind.MISSING, spool, number, what)
    if after - before - 1 > MAX_GAP:
        report.find(Kind.MISSING, spool, after - 1, f"nor have the others up to here, behind {before + MAX_GAP}")


def _check_unchained(spool: str, rows: Sequence[ChainRow], report: Report) -> None:
    """Rows from before there was a chain lie before it; one behind its begin was put there."""
    begin = next((row.segment for row in rows if row.place == 1), None)
    for row in rows:
        if begin is not None and not row.place and (row.segment >= begin or begin == 1):
            what = f"its row in `segments` stands outside the chain, which began with segment {begin}"
            report.find(Kind.ADDED, spool, row.segment, what)


def _check_strangers(
    clickhouse: ClickHouse, rows: dict[str, list[ChainRow]], keeping: Keeping, scope: Scope, report: Report
) -> None:
    for table in (*FORMS, RANGES):
        found = strangers(clickhouse, table, scope.spool)
        for stranger in found[:MAX_STRANGERS]:
            spool, segment, count = stranger.spool, stranger.segment, stranger.rows
            if (spool, segment) in scope.parked:
                report.notes.append(f"spool {spool}: {table} has {count} rows of segment {segment}, which is parked")
            elif _is_in_hand(stranger, rows.get(spool, ()), keeping, scope):
                what = f"segment {segment} is being loaded ({table} has {count} rows of it)"
                report.notes.append(f"spool {spool}: {what}")
            else:
                what = f"{table} has {count} rows of this segment, which has no row in `segments`"
                report.find(Kind.ADDED, spool, segment, what, table)
        if len(found) > MAX_STRANGERS:
            last = found[-1]
            what = f"{table} has rows of more than {MAX_STRANGERS} segments without a row in `segments`: from here on"
            report.find(Kind.ADDED, last.spool, last.segment, what, table)


def _is_in_hand(stranger: Stranger, rows: Sequence[ChainRow], keeping: Keeping, scope: Scope) -> bool:
    if stranger.spool in scope.in_hand:
        return stranger.segment == scope.in_hand[stranger.spool]
    newest = max((row.segment for row in rows), default=0)
    return stranger.segment == newest + 1 and _is_fresh(stranger.received_at_ms, keeping)


def _check_before(clickhouse: ClickHouse, scope: Scope, report: Report) -> None:
    """The migration made one range of all that came before the ledger, which follows from nothing any more."""
    ranges, older = from_before(clickhouse) if not scope.spool else (0, False)
    if ranges and older:
        report.notes.append(f"{ranges} rows of {RANGES} are from before the ledger: nothing shows what they say")
    elif ranges:
        what = f"{RANGES} has {ranges} rows from before the ledger, and no segment was loaded before it"
        report.find(Kind.ADDED, "", None, what, RANGES)
