"""Every segment against its chain, and the chain against what the signer signed, in these steps:

1. heads     signatures, by the audit public key alone
2. chain     places from 1 without a gap, each link computed again
3. signed    at each head's place stands the row that was signed; the chain reaches the newest head
4. numbers   segments without a gap, each naming the file before it
5. rows      counts and hashes of every table, computed by ClickHouse
6. strangers rows of segments that have no row in `segments`

Decides what is a finding and what a note. Parked segments are known only where the spool is at hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleetgate.control.heads import NO_LINK, SignedHead, next_link
from fleetgate.load.chain import ChainRow, chain_rows
from fleetgate.load.clickhouse import ClickHouse
from fleetgate.proof.findings import Kind, Report
from fleetgate.proof.heads import sort_out
from fleetgate.proof.rows import Expected, Keeping, check_rows, strangers

MAX_GAP = 100
"""So many missing numbers in a row are named one by one."""


class Scope(NamedTuple):
    """What is verified: one spool or all (""), and of each the rows of these segments. Chain and heads are always
    verified whole. `parked` are (spool, segment) that load set aside."""

    spool: str = ""
    first: int = 0
    last: int = 2**63 - 1
    parked: frozenset[tuple[str, int]] = frozenset()


def verify_segments(
    clickhouse: ClickHouse, heads: Iterable[SignedHead], key: Ed25519PublicKey, keeping: Keeping, scope: Scope
) -> Report:
    """Raises ClickHouseAway."""
    report = Report()
    signed = _heads(heads, key, scope, report)  # 1
    rows: dict[str, list[ChainRow]] = defaultdict(list)
    for row in chain_rows(
        clickhouse, "{spool:String} = '' OR spool = {spool:String}", {"spool": scope.spool}, "spool, place, segment"
    ):
        rows[row.spool].append(row)
    for spool in sorted(rows.keys() | signed.keys()):
        report.spools += 1
        chain = [row for row in rows[spool] if row.place]
        _check_chain(spool, chain, report)  # 2
        _check_signed(spool, chain, signed[spool], report)  # 3
        segments = _check_numbers(spool, rows[spool], scope, report)  # 4
        _check_unchained(spool, rows[spool], report)
        check_rows(
            clickhouse, spool, [s for s in segments if scope.first <= s.segment <= scope.last], keeping, report
        )  # 5
    _check_strangers(clickhouse, rows, scope, report)  # 6
    return report


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
            what = (
                f"place {row.place} of the chain (segment {row.segment}) is not what was signed at {signed.signed_at}"
            )
            report.find(Kind.ALTERED, spool, row.segment, what)
    newest = heads[-1] if heads else None
    if newest is not None and newest.head.place > end:
        what = (
            f"the newest rows of `segments` are cut off: place {newest.head.place} (segment {newest.head.segment}) was "
            f"signed at {newest.signed_at}, and the chain ends at place {end}"
        )
        report.find(Kind.CUT_OFF, spool, newest.head.segment, what)
    unsigned = sum(row.place > (newest.head.place if newest else 0) for row in chain)
    report.unsigned += unsigned
    if unsigned:
        since = "since the newest signed head" if newest else "and no head of this spool is signed"
        report.notes.append(
            f"spool {spool}: {unsigned} segments were loaded {since}: nothing outside ClickHouse vouches"
        )


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
        if begin is not None and not row.place and row.segment >= begin:
            what = f"its row in `segments` stands outside the chain, which began with segment {begin}"
            report.find(Kind.ADDED, spool, row.segment, what)


def _check_strangers(clickhouse: ClickHouse, rows: dict[str, list[ChainRow]], scope: Scope, report: Report) -> None:
    for table, spool, segment, count in strangers(clickhouse, scope.spool):
        newest = max((row.segment for row in rows.get(spool, ())), default=None)
        if (spool, segment) in scope.parked:
            report.notes.append(f"spool {spool}: {table} has {count} rows of segment {segment}, which is parked")
        elif newest is not None and segment > newest:
            report.notes.append(f"spool {spool}: segment {segment} is being loaded ({table} has {count} rows of it)")
        else:
            what = f"{table} has {count} rows of this segment, which has no row in `segments`"
            report.find(Kind.ADDED, spool, segment, what, table)
