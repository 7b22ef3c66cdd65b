"""A control database of an earlier fleetgate is brought to this version by whoever writes, and by nobody else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec
import pytest
from sqlalchemy import create_engine, inspect, select

from fleetgate.config import Config
from fleetgate.control.auditchain import audit_link, links_query
from fleetgate.control.devices import revoke
from fleetgate.control.heads import NO_LINK
from fleetgate.control.migrations import STEPS
from fleetgate.control.records import CredentialStatus
from fleetgate.control.schema import SCHEMA_VERSION, audit
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

BACK_TO_2 = """
CREATE TABLE former (audit_id INTEGER NOT NULL PRIMARY KEY, at_ms BIGINT NOT NULL, actor TEXT NOT NULL,
    action VARCHAR(32) NOT NULL, tenant VARCHAR(63) NOT NULL, object TEXT NOT NULL, detail TEXT NOT NULL);
INSERT INTO former SELECT 3 * place, at_ms, actor, action, tenant, object, detail FROM audit;
DROP TABLE audit;
ALTER TABLE former RENAME TO audit;
DROP TABLE audit_heads;
UPDATE meta SET value = 2 WHERE name = 'schema';
"""
"""Version 2 had no chain; its numbers could have gaps."""

BACK_TO_1 = """
DROP TABLE transfers;
DROP INDEX credentials_of_key;
DROP INDEX revocations_to_come;
ALTER TABLE credentials DROP COLUMN revoked_from_ms;
ALTER TABLE credentials DROP COLUMN invalid_from_ms;
ALTER TABLE spools DROP COLUMN newest_received_ms;
ALTER TABLE devices DROP COLUMN decided_at_ms;
UPDATE credentials SET parent = 1 WHERE credential_id = 2;
UPDATE meta SET value = 1 WHERE name = 'schema';
"""
"""Version 1 had all the rest; there a credential enrolled again named the revoked one as its parent."""


@pytest.fixture
def former(gate: Gate) -> Gate:
    """Records of version 1, with one device that was enrolled, revoked and enrolled again."""
    gate.enrol()
    with gate.store.write("test") as write:
        revoke(write, "acme", "car-tcu", "lost")
    gate.enrol()
    gate.store.close()
    with closing(sqlite3.connect(gate.config.path("control.db"))) as db:
        db.executescript(BACK_TO_2 + BACK_TO_1)
    return gate


def test_a_writer_brings_the_database_to_this_version(former: Gate) -> None:
    """Columns, indexes and tables are those of a new database, and what was revoked is."""
    with Store.open(former.config, former.clock, write=True) as store:
        [now, before] = store.devices([("acme", "car-tcu")])[("acme", "car-tcu")].credentials
        assert (now.status, now.revoked_from_ms) == (CredentialStatus.ACTIVE, None)
        assert (before.status, before.revoked_from_ms) == (CredentialStatus.REVOKED, before.ended_at_ms)
    with closing(sqlite3.connect(former.config.path("control.db"))) as db:
        assert db.execute("SELECT parent FROM credentials").fetchall() == [(None,), (None,)]
    engine = create_engine(f"sqlite:///{former.config.path('control.db')}")
    found = {index["name"] for index in inspect(engine).get_indexes("credentials")}
    assert {"credentials_of_key", "revocations_to_come"} <= found
    assert inspect(engine).has_table("transfers")
    assert "newest_received_ms" in {column["name"] for column in inspect(engine).get_columns("spools")}
    engine.dispose()


def test_a_reader_says_what_to_do(former: Gate) -> None:
    """It cannot change the tables, and does not guess at them."""
    with pytest.raises(ConfigError, match=r"version 1.*fleetgate up"):
        Store.open(former.config, former.clock)


def test_a_second_writer_finds_nothing_to_do(former: Gate) -> None:
    """Two that start at once stand in line."""
    Store.open(former.config, former.clock, write=True).close()
    Store.open(former.config, former.clock, write=True).close()
    Store.open(former.config, former.clock).close()


def test_every_former_version_has_its_step() -> None:
    """None is left out on the way from the oldest to this one."""
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))


def test_the_audit_of_version_2_becomes_a_chain(former: Gate) -> None:
    """In its order, with a last row that says how many there were; the table is that of a new database."""
    with Store.open(former.config, former.clock, write=True) as store:
        rows = [(row.place, row.action) for row in store.rows(select(audit).order_by(audit.c.place))]
        assert rows == [(1, "enrol"), (2, "revoke"), (3, "enrol"), (4, "chain_audit")]
        before = NO_LINK
        for link in map(audit_link, store.rows(links_query(0, 10))):
            assert link.follows(before)
            before = link.hash
    assert of_the_audit(former.config) == of_the_audit(new_database(former))


def of_the_audit(config: Config) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(config.path("control.db"))) as db:
        columns = db.execute("PRAGMA table_info(audit)").fetchall()
        return columns + db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()


def new_database(beside: Gate) -> Config:
    home = beside.config.path("new")
    home.mkdir()
    config = msgspec.structs.replace(beside.config, home=str(home))
    Store.open(config, beside.clock, create=True).close()
    return config
