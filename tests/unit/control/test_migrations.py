"""A control database of an earlier fleetgate is brought to this version by whoever writes, and by nobody else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, inspect

from fleetgate.control.devices import revoke
from fleetgate.control.migrations import STEPS
from fleetgate.control.records import CredentialStatus
from fleetgate.control.schema import SCHEMA_VERSION
from fleetgate.control.store import Store
from fleetgate.errors import ConfigError

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

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
        db.executescript(BACK_TO_1)
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
