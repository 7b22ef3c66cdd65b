"""The ends of the spool's chains go to the signer, and what it signed goes into `segment_heads`.

Decides what a signer that is away or refuses means: load goes on, and says so in its log and metrics. What may be
signed is decided by `control.signer`, whose key is not here.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from fleetgate import log
from fleetgate.control.heads import NO_LINK, SignedHead, next_link
from fleetgate.control.signing import MAX_STEPS, SignerAway, SignerClient, SignerRefused
from fleetgate.errors import ClickHouseAway, FleetgateError, SpoolError
from fleetgate.load.arrow import MILLISECONDS
from fleetgate.load.chain import Chain, ChainRow, chain_rows
from fleetgate.load.clickhouse import ClickHouse, Refused
from fleetgate.load.counts import Counts
from fleetgate.spool.identity import read_identity

MAX_ROWS = 20 * MAX_STEPS
"""Of one round: 10,000 rows of the chain, 3 hours of absence; what is left is signed in the next."""

_REMEDY = ": `fleetgate verify segments` says more"

COLUMNS = ("spool", "segment", "sha256", "place", "link", "signed_at", "key_id", "signature")


class ChainChanged(FleetgateError):
    """What ClickHouse has of the chain is not what was signed and loaded."""


class Heads:
    def __init__(self, spool: Path, signer: SignerClient, clickhouse: ClickHouse, chain: Chain, counts: Counts) -> None:
        self._spool = spool
        self._signer = signer
        self._clickhouse = clickhouse
        self._chain = chain
        self._counts = counts
        self._log = log.get("load")
        self._said: set[str] = set()
        self._behind: dict[str, int] = {}

    def round(self) -> None:
        """Has signed what is new. Raises nothing: what went wrong is said, and tried again in the next round.

        Of the former identities of the spool too: segments that bear them are loaded after it got a new one.
        """
        errors: list[str] = []
        try:
            identity = read_identity(self._spool)
            spools = [identity.spool, *identity.former] if identity is not None else []
            for number, spool in enumerate(spools):
                newest = self._chain.newest(spool)
                if newest is not None:
                    self._sign_one(newest, errors, former=number > 0)
        except SignerAway as error:
            self._counts.signer_away.set(1)
            errors.append(str(error))
        except (ClickHouseAway, Refused, SpoolError, OSError) as error:
            errors.append(str(error))
        for text in errors:
            if text not in self._said:
                self._log.error("chain_head_not_signed", error=text)
        self._said = set(errors)

    def _sign_one(self, newest: ChainRow, errors: list[str], *, former: bool) -> None:
        """What is wrong with the chain of a `former` identity is said and no alarm: the new one was the remedy, and
        `fleetgate verify segments` goes on telling it. Raises SignerAway, ClickHouseAway, Refused, SpoolError."""
        try:
            self._sign(newest)
        except (SignerRefused, ChainChanged) as error:
            if former:
                self._note_behind(newest.spool, 0)
                errors.append(f"of a former identity of this spool: {error}")
            else:
                reason = error.reason if isinstance(error, SignerRefused) else "changed"
                self._counts.heads_refused.labels(reason).inc()
                errors.append(str(error))
        self._counts.signer_away.set(0)

    def _note_behind(self, spool: str, rows: int) -> None:
        self._behind[spool] = rows
        self._counts.unsigned.set(sum(self._behind.values()))

    def _sign(self, newest: ChainRow) -> None:
        signed = self._signer.newest(newest.spool)
        place, link = (signed.head.place, signed.head.link) if signed else (0, NO_LINK)
        self._note_behind(newest.spool, max(0, newest.place - place))
        doubt = self._chain.doubt(newest.spool, signed.head if signed else None)
        if doubt:
            raise ChainChanged(doubt)
        if (place, link) == (newest.place, newest.link):
            return
        if place >= newest.place:
            self._signer.sign(newest.head(), [])  # it says whether this is a rollback or a fork
        rows = self._rows_behind(newest, place, link)
        for start in range(0, len(rows), MAX_STEPS):
            some = rows[start : start + MAX_STEPS]
            signed = self._signer.sign(some[-1].head(), [row.digest().hex() for row in some])
            self._keep(signed)
            self._counts.heads.inc()
            self._note_behind(newest.spool, newest.place - some[-1].place)

    def _rows_behind(self, newest: ChainRow, place: int, link: str) -> list[ChainRow]:
        """The rows from behind `place` to `newest`, as ClickHouse has them now. Raises ChainChanged where these are not
        what load wrote: then nothing is signed."""
        rows = chain_rows(
            self._clickhouse,
            "spool = {spool:String} AND place > {after:UInt64} AND place <= {end:UInt64}",
            {"spool": newest.spool, "after": place, "end": min(newest.place, place + MAX_ROWS)},
            "place",
        )
        for row in rows:
            link = next_link(link, row.digest())
            if row.link != link:
                raise ChainChanged(f"the chain breaks at place {row.place} (segment {row.segment}){_REMEDY}")
        if not rows or rows[-1].place != min(newest.place, place + MAX_ROWS):
            raise ChainChanged(f"rows behind place {place} are gone from the table `segments`{_REMEDY}")
        if rows[-1].place == newest.place and link != newest.link:
            raise ChainChanged(f"rows behind place {place} are not those that load wrote{_REMEDY}")
        return rows

    def _keep(self, signed: SignedHead) -> None:
        # With the key: a signer that began anew signs a place again, and its head is another one.
        token = f"head-{signed.head.spool}-{signed.head.place}-{signed.key_id}"
        self._clickhouse.insert("segment_heads", heads_table([signed]), token)


def heads_table(heads: list[SignedHead]) -> pa.Table:
    """Rows of `segment_heads`."""
    values = [
        (h.head.spool, h.head.segment, h.head.sha256, h.head.place, h.head.link, h.signed_at, h.key_id, h.signature)
        for h in heads
    ]
    kinds = (pa.string(), pa.uint64(), pa.string(), pa.uint64(), pa.string(), MILLISECONDS, pa.string(), pa.string())
    arrays = [pa.array(column, type=kind) for column, kind in zip(zip(*values, strict=True), kinds, strict=True)]
    return pa.table(dict(zip(COLUMNS, arrays, strict=True)))
