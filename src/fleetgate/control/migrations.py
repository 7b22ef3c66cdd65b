"""Brings the control database of an earlier fleetgate to the version of these tables.

Decides the statements from each version to the next. Runs in one transaction of whoever opens the database for
writing: a crash leaves one of the two versions, whole. Statements are about what a former `control.schema` had, so they
name tables and columns themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from sqlalchemy import Connection, select, text, update

from fleetgate.control.auditchain import CHAINED, chained
from fleetgate.control.heads import NO_LINK
from fleetgate.control.schema import AUDIT_TRIGGERS, SCHEMA_VERSION, meta, metadata

OLDEST_VERSION = 1

_AT_ONCE = 10_000  # rows in memory; an audit may have millions


def _chain_audit(connection: Connection, now_ms: int) -> None:
    """The rows of version 2 in their order, as a chain; a last one says how many there were: nothing vouches that
    these are as they were written."""
    connection.execute(text("ALTER TABLE audit RENAME TO audit_2"))
    connection.execute(
        text(
            "CREATE TABLE audit (place INTEGER NOT NULL PRIMARY KEY, at_ms BIGINT NOT NULL, actor TEXT NOT NULL, "
            "action VARCHAR(32) NOT NULL, tenant VARCHAR(63) NOT NULL, object TEXT NOT NULL, detail TEXT NOT NULL, "
            "hash VARCHAR(64) NOT NULL)"
        )
    )
    into = text("INSERT INTO audit VALUES (:place, :at_ms, :actor, :action, :tenant, :object, :detail, :hash)")
    former = text("SELECT at_ms, actor, action, tenant, object, detail FROM audit_2 ORDER BY audit_id")
    place, link = 0, NO_LINK

    def put(rows: list[dict[str, Any]]) -> None:
        nonlocal place, link
        done = chained(place, link, rows)
        connection.execute(into, done)
        place, link = done[-1]["place"], done[-1]["hash"]

    for rows in connection.execute(former).mappings().partitions(_AT_ONCE):
        put([dict(row) for row in rows])
    put(
        [
            {
                "at_ms": now_ms,
                "actor": "upgrade",
                "action": CHAINED,
                "tenant": "",
                "object": "audit",
                "detail": msgspec.json.encode({"former_rows": place}).decode(),
            }
        ]
    )
    connection.execute(text("DROP TABLE audit_2"))
    connection.execute(text("CREATE INDEX audit_beginnings ON audit (place) WHERE action = 'records_restored'"))
    for trigger in AUDIT_TRIGGERS:
        connection.execute(text(trigger))


STEPS: Mapping[int, tuple[str | Callable[[Connection, int], None], ...]] = MappingProxyType(
    {
        1: (
            "ALTER TABLE credentials ADD COLUMN revoked_from_ms BIGINT",
            "ALTER TABLE credentials ADD COLUMN invalid_from_ms BIGINT",
            "UPDATE credentials SET revoked_from_ms = ended_at_ms WHERE status = 'revoked'",
            # Nothing was renewed under version 1: its parents are the credentials that an enrolment came after.
            "UPDATE credentials SET parent = NULL",
            "CREATE INDEX credentials_of_key ON credentials (key_digest)",
            "CREATE INDEX revocations_to_come ON credentials (revoked_from_ms) "
            "WHERE revoked_from_ms IS NOT NULL AND status != 'revoked'",
            # The first databases of version 1 had no such table.
            "CREATE TABLE IF NOT EXISTS spools (spool VARCHAR(32) NOT NULL PRIMARY KEY, begun_at_ms BIGINT NOT NULL, "
            "loaded BIGINT NOT NULL, replaced_at_ms BIGINT)",
            "ALTER TABLE spools ADD COLUMN newest_received_ms BIGINT NOT NULL DEFAULT 0",
        ),
        2: (
            "ALTER TABLE devices ADD COLUMN decided_at_ms BIGINT NOT NULL DEFAULT 0",
            "UPDATE devices SET decided_at_ms = coalesce((SELECT max(at_ms) FROM decisions "
            "WHERE decisions.tenant = devices.tenant AND decisions.device_id = devices.device_id), 0)",
            _chain_audit,
        ),
    }
)
"""From each version to the next: statements, and functions of the transaction and the time. New tables are made from
`control.schema` afterwards."""


def migrate(connection: Connection, now_ms: int) -> None:
    """In a transaction of writing; a version that is not known is left as it is, for the caller to refuse."""
    version = connection.execute(select(meta.c.value).where(meta.c.name == "schema").with_for_update()).scalar()
    if version is None or not OLDEST_VERSION <= version <= SCHEMA_VERSION:
        return
    for step in range(version, SCHEMA_VERSION):
        for statement in STEPS[step]:
            if isinstance(statement, str):
                connection.execute(text(statement))
            else:
                statement(connection, now_ms)
        connection.execute(update(meta).where(meta.c.name == "schema").values(value=step + 1))
    metadata.create_all(connection)
