"""Brings the control database of an earlier fleetgate to the version of these tables.

Decides the statements from each version to the next. Runs in one transaction of whoever opens the database for
writing: a crash leaves one of the two versions, whole. Statements are about what a former `control.schema` had, so they
name tables and columns themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sqlalchemy import Connection, select, text, update

from fleetgate.control.schema import SCHEMA_VERSION, meta, metadata

OLDEST_VERSION = 1

STEPS: Mapping[int, tuple[str, ...]] = MappingProxyType(
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
        ),
    }
)
"""From each version to the next. New tables are made from `control.schema` afterwards."""


def migrate(connection: Connection) -> None:
    """In a transaction of writing; a version that is not known is left as it is, for the caller to refuse."""
    version = connection.execute(select(meta.c.value).where(meta.c.name == "schema").with_for_update()).scalar()
    if version is None or not OLDEST_VERSION <= version <= SCHEMA_VERSION:
        return
    for step in range(version, SCHEMA_VERSION):
        for statement in STEPS[step]:
            connection.execute(text(statement))
        connection.execute(update(meta).where(meta.c.name == "schema").values(value=step + 1))
    metadata.create_all(connection)
