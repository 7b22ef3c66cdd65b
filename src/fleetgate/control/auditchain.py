"""The audit as a chain: each row has a place, and a hash over the hash before and itself.

Decides what the hash covers: every column of the row but the hash. So one hash stands for its row and all before it:
who changes, takes away, adds or moves a row has to make every later hash anew, and heads that were signed meanwhile
(`control.auditheads`) say that he did. What a broken chain means is decided by `proof.audit`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, LargeBinary, Row, Select, case, cast, func, insert, select

from fleetgate.control.heads import NO_LINK, AuditHead, next_link
from fleetgate.control.schema import audit

COLUMNS: Final = ("place", "at_ms", "actor", "action", "tenant", "object", "detail")
"""What the hash covers, in this order."""

CHAINED: Final = "chain_audit"
"""The action of the row behind those that were written before there was a chain; its detail has their number."""

_DOMAIN = b"fleetgate audit row 1\n"

END = select(audit.c.place, audit.c.hash).order_by(audit.c.place.desc()).limit(1)


class AuditLink(Struct, frozen=True):
    """A row as it stands in the database, reduced to what the chain needs. `place` is None where it has no whole number
    as its place."""

    place: int | None
    at_ms: int
    digest: bytes
    hash: str

    def follows(self, link: str) -> bool:
        return next_link(link, self.digest, AuditHead.LINKS) == self.hash


def digest(row: Mapping[str, Any]) -> bytes:
    """SHA-256 over the row as JSON: an array of its values in the order of COLUMNS."""
    return hashlib.sha256(_DOMAIN + msgspec.json.encode([row[name] for name in COLUMNS])).digest()


def chained(place: int, link: str, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows, to stand behind the row at `place` whose hash is `link`, with place and hash."""
    done = []
    for row in rows:
        place += 1
        placed = {**row, "place": place}
        link = next_link(link, digest(placed), AuditHead.LINKS)
        done.append({**placed, "hash": link})
    return done


def append(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes the rows at the end of the chain; in a transaction of writing, so that nobody else is there."""
    end = connection.execute(END).first()
    place, link = (end.place, str(end.hash)) if end is not None else (0, NO_LINK)
    connection.execute(insert(audit), chained(place, link, rows))


def rows_query() -> Select[Any]:
    """Every row, for `as_written`. Whatever was put into a column comes through: a text that is none must not end a
    verification, nor hide the other rows from whoever reads. Whoever shows rows and whoever verifies them read this."""
    texts = (_if_type(audit.c[name], "text", cast(audit.c[name], LargeBinary), name) for name in (*COLUMNS[2:], "hash"))
    numbers = (_if_type(audit.c[name], "integer", audit.c[name], name) for name in COLUMNS[:2])
    return select(*numbers, *texts)


def links_query(after: int, limit: int) -> Select[Any]:
    """The rows behind this place, for `audit_link`."""
    return rows_query().where(audit.c.place > after).order_by(audit.c.place).limit(limit)


def as_written(row: Row[Any]) -> dict[str, Any]:
    """The values of a row by column; what no writer of ours has written counts as null, which no honest row has."""
    return {str(name): _text(value) if isinstance(value, bytes) else value for name, value in row._mapping.items()}


def audit_link(row: Row[Any]) -> AuditLink:
    values = as_written(row)
    return AuditLink(row.place, int(values["at_ms"] or 0), digest(values), str(values["hash"] or ""))


def _if_type(column: ColumnElement[Any], kind: str, value: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    return case((func.typeof(column) == kind, value)).label(name)


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
