"""The audit against its own chain, and the chain against what the signer signed, in these steps:

1. heads     signatures, by the audit public key alone
2. chain     every row of the table: places from 1, none left out and none twice, each hash computed again (`auditwalk`)
3. signed    at each head's place stands the row that was signed; the audit reaches the newest head
4. unsigned  rows behind the newest head are new

Decides what is a finding and what a note. A row that somebody changed makes one finding, however many rows follow: each
is compared with the hash that stands before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleetgate.clock import utc
from fleetgate.control.auditheads import signed_heads
from fleetgate.control.heads import SignedAuditHead, check_signature
from fleetgate.control.store import Store
from fleetgate.converting import converter
from fleetgate.errors import CheckFailed, NotFound
from fleetgate.proof.auditwalk import Restore, Walk, check_indexes, note_former, restores_of, walk_along
from fleetgate.proof.findings import AuditReport, Kind

FRESH_MS = 600_000
"""Load has the audit signed once a minute; ten times that is no delay any more."""

CLOCKS_MS = 60_000
"""So far the clocks of those who write and of who verifies may be apart."""


class Allowed(NamedTuple):
    """`unsigned`: what no head vouches for. `restored`: what was signed before the chain of this name began and is not
    there, where the row it began with says that the records were restored from a backup. The name is the hash of that
    row and of all before: nobody who learns it can write anew what it lets pass, nor what came later."""

    unsigned: bool = False
    restored: str | None = None


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
    restores = restores_of(store)
    walk = walk_along(store, good, restores, report)  # 2
    check_indexes(store, report)
    if not (walk.end or good):
        raise NotFound("the audit has no row, and no head of one is signed: nothing was verified")
    _check_signed(good, walk, restores, allowed.restored, report)  # 3
    _check_unsigned(store, good, walk, allowed, report)  # 4
    note_former(store, report)
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


def _check_signed(
    heads: list[SignedAuditHead], walk: Walk, restores: list[Restore], name: str | None, report: AuditReport
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


def _all_but_lost(heads: list[SignedAuditHead], known: Restore, report: AuditReport) -> list[SignedAuditHead]:
    """Of heads that do not stand those that the restore did not cost; what it did is noted."""
    lost = [signed for signed in heads if signed.signed_at <= known.until_ms and signed.head.chain != known.chain]
    if lost:
        newest = max(lost, key=lambda signed: signed.signed_at)
        report.notes.append(
            f"the records were restored at place {known.place}: lost is what was signed before, up to place "
            f"{newest.head.place} at {utc(newest.signed_at)}"
        )
    return [signed for signed in heads if signed not in lost]


def _check_heads(heads: list[SignedAuditHead], walk: Walk, report: AuditReport) -> None:
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


def _stands(signed: SignedAuditHead, walk: Walk) -> bool:
    """Whether the row that was signed stands at its place."""
    return walk.hashes.get(signed.head.place) == signed.head.link


def _check_unsigned(
    store: Store, heads: list[SignedAuditHead], walk: Walk, allowed: Allowed, report: AuditReport
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


_signed_head = converter(SignedAuditHead)
