"""The audit against its own chain, and the chain against what the signer signed, in these steps:

1. heads     signatures, by the audit public key alone
2. chain     places from 1 without a gap, each hash computed again
3. signed    at each head's place stands the row that was signed; the audit reaches the newest head
4. unsigned  rows behind the newest head are new

Decides what is a finding and what a note. A row that somebody changed makes one finding, however many rows follow: each
is compared with the hash that stands before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct, field
from sqlalchemy import LargeBinary, cast, select

from fleetgate.clock import utc
from fleetgate.control.auditchain import CHAINED, AuditLink, audit_link, links_query
from fleetgate.control.auditheads import beginning, signed_heads
from fleetgate.control.heads import NO_LINK, SignedAuditHead, check_signature
from fleetgate.control.schema import RESTORED, audit
from fleetgate.control.store import Store
from fleetgate.converting import converter
from fleetgate.errors import CheckFailed, NotFound
from fleetgate.proof.findings import Kind

FRESH_MS = 600_000
"""Load has the audit signed once a minute; ten times that is no delay any more."""

CLOCKS_MS = 60_000
"""So far the clocks of those who write and of who verifies may be apart."""

MAX_FINDINGS = 100
"""Of broken links: whoever writes everything anew with another rule breaks them all."""

_AT_ONCE = 10_000  # rows in memory


class AuditFinding(Struct, frozen=True):
    """`what` is a sentence; `place` is None where it is about none."""

    kind: Kind
    place: int | None
    what: str


class AuditReport(Struct):
    """`rows` were hashed; `heads` had a good signature; `unsigned` rows are behind the newest of them."""

    rows: int = 0
    heads: int = 0
    unsigned: int = 0
    findings: list[AuditFinding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def find(self, kind: Kind, place: int | None, what: str) -> None:
        self.findings.append(AuditFinding(kind, place, what))


class Allowed(NamedTuple):
    """`unsigned`: what no head vouches for. `restored`: what was signed before the chain of this name began and is not
    there, where the row it began with says that the records were restored from a backup. The name is the hash of that
    row and of all before: nobody who learns it can write anew what it lets pass, nor what came later."""

    unsigned: bool = False
    restored: str | None = None


class _Restore(NamedTuple):
    """A row that says that the records were restored, and until when heads had been signed then."""

    place: int
    chain: str
    until_ms: int


class _Walk(NamedTuple):
    """What the way along the chain leaves: the hash of the row it began with, its end, the hashes at the places of
    heads, and the oldest and newest time behind the newest head."""

    chain: str
    end: int
    hashes: dict[int, str]
    oldest_ms: int
    newest_ms: int


def stored_heads(store: Store) -> tuple[list[SignedAuditHead], list[str]]:
    """The heads in `audit_heads`; and of each row that is no head, what is wrong. Raises ControlAway."""
    heads, bad = [], []
    for chain, place, link, signed_at, key_id, signature in signed_heads(store):
        signed = {"head": {"chain": chain, "place": place, "link": link}, "signed_at": signed_at, "key_id": key_id}
        try:
            heads.append(_signed_head(signed | {"signature": signature}))
        except msgspec.ValidationError as error:
            bad.append(f"a row of audit_heads (place {place}) is no head: {error}")
    return heads, bad


def verify_audit(
    store: Store, heads: Iterable[SignedAuditHead], key: Ed25519PublicKey, allowed: Allowed
) -> AuditReport:
    """`heads` from wherever they are kept, read before the rows are: the audit only grows. Raises ControlAway; NotFound
    where there is neither a row nor a head."""
    report = AuditReport()
    good = _heads(heads, key, report)  # 1
    _before_the_first(store, report)
    restores = _restores(store)
    walk = _walk(store, good, restores, report)  # 2
    if not (walk.end or good):
        raise NotFound("the audit has no row, and no head of one is signed: nothing was verified")
    _check_signed(good, walk, restores, allowed.restored, report)  # 3
    _check_unsigned(store, good, walk, allowed, report)  # 4
    _note_former(store, report)
    return report


def _heads(heads: Iterable[SignedAuditHead], key: Ed25519PublicKey, report: AuditReport) -> list[SignedAuditHead]:
    good = set()
    for signed in set(heads):
        try:
            check_signature(signed, key)
        except CheckFailed as error:
            report.find(Kind.SIGNATURE, signed.head.place, str(error))
        else:
            good.add(signed)
    report.heads = len(good)
    return sorted(good, key=lambda signed: (signed.head.place, signed.signed_at))


def _rows(store: Store) -> Iterator[AuditLink]:
    after = 0
    while rows := store.rows(links_query(after, _AT_ONCE)):
        yield from map(audit_link, rows)
        after = rows[-1].place


def _before_the_first(store: Store, report: AuditReport) -> None:
    """The way along the chain begins at place 1; whoever reads the audit sees what stands before, too."""
    rows = store.rows(select(audit.c.place).where(audit.c.place < 1).order_by(audit.c.place))
    if rows:
        what = f"{len(rows)} rows stand" if len(rows) > 1 else "a row stands"
        report.find(Kind.ALTERED, rows[0].place, f"{what} before the first place: nobody wrote there but by hand")


def _restores(store: Store) -> list[_Restore]:
    """In their order. A row of an earlier release does not say what was signed: then its own time counts."""
    found = []
    texts = (cast(audit.c[name], LargeBinary).label(name) for name in ("hash", "detail"))
    query = select(audit.c.place, audit.c.at_ms, *texts).where(audit.c.action == RESTORED).order_by(audit.c.place)
    for row in store.rows(query):
        until_ms = beginning(row.detail).signed_until_ms
        at_ms = row.at_ms if isinstance(row.at_ms, int) else 0
        found.append(_Restore(row.place, row.hash.decode(errors="replace"), at_ms if until_ms is None else until_ms))
    return found


def _walk(store: Store, heads: list[SignedAuditHead], restores: list[_Restore], report: AuditReport) -> _Walk:
    begin = restores[-1].place if restores else 1
    places = {signed.head.place for signed in heads}
    chain, place, link, broken = "", 0, NO_LINK, 0
    hashes: dict[int, str] = {}
    times: list[int] = []
    for row in _rows(store):
        report.rows += 1
        if row.place != place + 1:
            gone = f"row {place + 1} is" if row.place == place + 2 else f"rows {place + 1} to {row.place - 1} are"
            report.find(Kind.MISSING, place + 1, f"{gone} gone")
        elif not row.follows(link):
            broken += 1
            if broken <= MAX_FINDINGS:
                report.find(Kind.ALTERED, row.place, _not_what_was_written(row.place))
        place, link = row.place, row.hash
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
    return _Walk(chain, place, hashes, oldest_ms, newest_ms)


def _not_what_was_written(place: int) -> str:
    before = "" if place == 1 else ", or the hash before it is another one"
    return f"what stands there is not what was written there: it was changed, added or moved{before}"


def _check_signed(
    heads: list[SignedAuditHead], walk: _Walk, restores: list[_Restore], name: str | None, report: AuditReport
) -> None:
    """What was signed before the restore of this name, and does not stand, is lost; any other head has to stand."""
    of_this = [signed for signed in heads if signed.head.chain == walk.chain]
    of_former = [signed for signed in heads if signed.head.chain != walk.chain and not _stands(signed, walk)]
    _check_heads(of_this, walk, report)
    if name is not None:
        known = next((restore for restore in restores if restore.chain == name), None)
        if known is None:
            what = f"no row that says that the records were restored has the name {name[:12]}..., which is known"
            report.find(Kind.ALTERED, None, what)
        else:
            of_former = _all_but_lost(of_former, known, report)
    if not of_former:
        return
    _check_heads(of_former, walk, report)
    if restores and name != restores[-1].chain:
        report.notes.append(
            f"place {restores[-1].place} says that the records were restored; for whoever knows that they were, "
            f"--restored {restores[-1].chain} lets pass what it cost"
        )


def _all_but_lost(heads: list[SignedAuditHead], known: _Restore, report: AuditReport) -> list[SignedAuditHead]:
    """Of heads that do not stand those that the restore did not cost; what it did is noted."""
    lost = [signed for signed in heads if signed.signed_at <= known.until_ms and signed.head.chain != known.chain]
    if lost:
        newest = max(lost, key=lambda signed: signed.signed_at)
        report.notes.append(
            f"the records were restored at place {known.place}: lost is what was signed before, up to place "
            f"{newest.head.place} at {utc(newest.signed_at)}"
        )
    return [signed for signed in heads if signed not in lost]


def _check_heads(heads: list[SignedAuditHead], walk: _Walk, report: AuditReport) -> None:
    """Of all heads that do not fit only the oldest is told: what is behind it is another history anyway."""
    good = 0
    for signed in heads:
        place = signed.head.place
        if place > walk.end or place not in walk.hashes:  # cut off, or missing
            continue
        if _stands(signed, walk):
            good = place
            continue
        which = f"rows between {good + 1} and {place} were" if place > good + 1 else "the row was"
        what = f"{which} written anew: another audit was signed for this place, at {utc(signed.signed_at)}"
        report.find(Kind.ALTERED, place, what)
        break
    newest = heads[-1] if heads else None
    if newest is not None and newest.head.place > walk.end:
        what = (
            f"the newest rows are cut off: place {newest.head.place} was signed at {utc(newest.signed_at)}, and the "
            f"audit ends at place {walk.end}"
        )
        report.find(Kind.CUT_OFF, newest.head.place, what)


def _stands(signed: SignedAuditHead, walk: _Walk) -> bool:
    """Whether the row that was signed stands at its place."""
    return walk.hashes.get(signed.head.place) == signed.head.link


def _check_unsigned(
    store: Store, heads: list[SignedAuditHead], walk: _Walk, allowed: Allowed, report: AuditReport
) -> None:
    newest = max((signed.head.place for signed in heads if _stands(signed, walk)), default=0)
    report.unsigned = walk.end - newest
    if not report.unsigned:
        return
    since = "behind the newest signed head" if newest else "and no head is signed"
    what = f"rows written {since}: {report.unsigned}; nothing outside the database vouches for them yet"
    now_ms = store.clock.now_ms()
    fresh = now_ms - FRESH_MS <= walk.oldest_ms and walk.newest_ms <= now_ms + CLOCKS_MS
    if allowed.unsigned or fresh:
        report.notes.append(what)
        return
    remedy = (
        "load had ten minutes to have them signed: see its log, and fleetgate_load_signer_away; for a gate without a "
        "signer, or whose load does not run: --unsigned"
    )
    report.find(Kind.UNSIGNED, walk.end, f"{what}. {remedy}")


def _note_former(store: Store, report: AuditReport) -> None:
    for row in store.rows(select(audit.c.place).where(audit.c.action == CHAINED)):
        if row.place > 1:
            report.notes.append(f"rows 1 to {row.place - 1} were written before there was a chain, and chained later")


_signed_head = converter(SignedAuditHead)
