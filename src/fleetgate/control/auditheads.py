"""Heads of the audit: its end goes to the signer, and what was signed into `audit_heads`.

Decides what is asked to be signed: rows that follow from the newest signed head. The signer decides by the same rule
(`control.signer`), so nobody rolls the audit back and goes on: not even a person who has to restore the records from a
backup, whose newest rows are lost then. He says so in a row, with which a new chain begins, and which names the one
that it follows: what is signed of the new one cannot be left for a third one without another such row. When heads are
signed, and what a signer that is away or refuses means, is decided by `load.auditheads`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct
from sqlalchemy import LargeBinary, cast, insert, literal_column, or_, select

from fleetgate.control.auditchain import END, AuditLink, audit_link, links_query
from fleetgate.control.heads import NO_LINK, AuditHead, SignedAuditHead
from fleetgate.control.reason import check_reason
from fleetgate.control.schema import RESTORED, audit, audit_heads
from fleetgate.control.signing import MAX_STEPS, SignerClient
from fleetgate.control.store import Store, Write
from fleetgate.errors import FleetgateError

ACTOR = "load"
MAX_ROWS = 20 * MAX_STEPS
"""Of one round: 10,000 rows. What is left, of an audit from before the chain, is signed in the next ones."""


class AuditChanged(FleetgateError):
    """The audit is not what was signed, or its rows do not follow from one another."""


_BEGINNINGS = or_(audit.c.place == 1, audit.c.action == literal_column(f"'{RESTORED}'"))  # so that the index is used


class Beginning(Struct, frozen=True):
    """What the row says that begins a chain anew: the chain that was signed last before, and when that was. Rows of
    earlier releases do not."""

    former_chain: str | None = None
    signed_until_ms: int | None = None


def beginning(detail: bytes) -> Beginning:
    """Whatever stands there: a row that somebody wrote by hand is no error."""
    try:
        return _decode_beginning(detail)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Beginning()


def chain_of(store: Store) -> tuple[str, Beginning] | None:
    """The name of the chain, which is the hash of the row it began with, and what that says of the one before; None
    while there is no row."""
    names = (audit.c.hash, audit.c.action, cast(audit.c.detail, LargeBinary).label("detail"))
    rows = store.rows(select(*names).where(_BEGINNINGS).order_by(audit.c.place.desc()).limit(1))
    if not rows:
        return None
    return str(rows[0].hash), beginning(rows[0].detail) if rows[0].action == RESTORED else Beginning()


def begin_anew(write: Write, reason: str, last: SignedAuditHead | None) -> None:
    """The records were restored from a backup, or begun anew: what was signed of the audit before is another chain.
    `last`: what the signer signed last, if anything."""
    check_reason(reason)
    before = msgspec.structs.asdict(Beginning(last.head.chain, last.signed_at)) if last is not None else {}
    write.note(RESTORED, "", "audit", {"reason": reason, **before})


def sign_audit(store: Store, signer: SignerClient, on_behind: Callable[[int], None]) -> int:
    """Has signed what is new, at most MAX_ROWS; how many heads that were. `on_behind` is told how many rows have no
    signed head behind them, before and after.

    Raises SignerAway, SignerRefused, AuditChanged, ControlAway.
    """
    found = chain_of(store)
    if found is None:
        return 0
    chain, before = found
    newest = signer.newest_audit(chain)
    if newest is not None:
        _keep(store, newest)  # the process may have ended before it was kept
    place, link = (newest.head.place, newest.head.link) if newest is not None else (0, NO_LINK)
    [end] = store.rows(END)
    on_behind(max(0, end.place - place))
    if (end.place, end.hash) == (place, link):
        return 0
    if end.place <= place:
        # The signer says whether that is a rollback or a fork.
        signer.sign_audit(AuditHead(chain, end.place, end.hash), [], before.former_chain)
    rows = _rows_behind(store, place, link)
    heads = 0
    for start in range(0, len(rows), MAX_STEPS):
        some = rows[start : start + MAX_STEPS]
        head = AuditHead(chain, place + start + len(some), some[-1].hash)
        _keep(store, signer.sign_audit(head, [row.digest.hex() for row in some], before.former_chain))
        heads += 1
        on_behind(max(0, end.place - head.place))
    return heads


def signed_heads(store: Store) -> list[tuple[str, int, str, int, str, str]]:
    """(chain, place, link, signed_at_ms, key_id, signature) of each row of `audit_heads`, as it stands there."""
    return [tuple(row) for row in store.rows(select(audit_heads).order_by(audit_heads.c.place))]


def _rows_behind(store: Store, place: int, link: str) -> list[AuditLink]:
    """Raises AuditChanged where they do not follow: then nothing is signed."""
    rows = [audit_link(row) for row in store.rows(links_query(place, MAX_ROWS))]
    for row in rows:
        if row.place != place + 1 or not row.follows(link):
            why = f"the audit breaks behind place {place}"
            raise AuditChanged(f"{why}, so no head of it is signed: `fleetgate verify audit` says more")
        place, link = place + 1, row.hash
    return rows


def _keep(store: Store, signed: SignedAuditHead) -> None:
    head = signed.head
    at_place = (audit_heads.c.chain == head.chain) & (audit_heads.c.place == head.place)
    if store.rows(select(audit_heads.c.place).where(at_place, audit_heads.c.key_id == signed.key_id)):
        return
    with store.write(ACTOR) as write:
        write.execute(
            insert(audit_heads).prefix_with("OR IGNORE"),
            {
                "chain": head.chain,
                "place": head.place,
                "link": head.link,
                "signed_at_ms": signed.signed_at,
                "key_id": signed.key_id,
                "signature": signed.signature,
            },
        )


_decode_beginning = msgspec.json.Decoder(Beginning).decode
