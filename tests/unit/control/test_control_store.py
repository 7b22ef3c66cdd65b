"""The control database: transactions, readers, and what its failures look like."""

from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from sqlalchemy import func, insert, select, update

from fleetgate.config import Config, Control
from fleetgate.control import database
from fleetgate.control.devices import enrol, revoke
from fleetgate.control.records import CredentialStatus
from fleetgate.control.roster import list_devices
from fleetgate.control.schema import audit, changes, meta, tenants, vehicles, vins
from fleetgate.control.store import BATCH_LIMIT, Store
from fleetgate.errors import ConfigError, Conflict, ControlAway

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate, SetClock

DAY_MS = 24 * 3600 * 1000


def test_every_change_has_its_revision_and_audit(gate: Gate) -> None:
    """One write gives each device it touched a revision of its own, and an audit row that names who did it."""
    gate.enrol("a")
    gate.enrol("b")
    assert [(c.revision, c.kind, c.device_id) for c in gate.store.changes_from(1, 10)] == [
        (1, "enrol", "a-tcu"),
        (2, "enrol", "b-tcu"),
    ]
    assert gate.store.revision() == 2
    assert [(row.actor, row.action, row.object) for row in gate.store.rows(select(audit))] == [
        ("test", "enrol", "device/a-tcu"),
        ("test", "enrol", "device/b-tcu"),
    ]


def test_failed_write_leaves_nothing(gate: Gate) -> None:
    """What is raised in a write undoes its rows, its revision and its audit together."""

    def fail() -> None:
        with gate.store.write("test") as write:
            write.execute(insert(tenants), {"tenant": "x", "created_at_ms": 0})
            write.record("enrol", "x", "d", {})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    counts = [gate.store.rows(select(func.count()).select_from(table))[0][0] for table in (tenants, changes, audit)]
    assert (counts, gate.store.revision()) == ([0, 0, 0], 0)


def test_changes_come_in_portions_of_the_limit(gate: Gate) -> None:
    """A poll gets at most its limit, oldest first, and goes on from the last revision it saw."""
    for name in "abc":
        gate.enrol(name)
    first = gate.store.changes_from(1, 2)
    rest = gate.store.changes_from(first[-1].revision + 1, 2)
    assert [c.device_id for c in first + rest] == ["a-tcu", "b-tcu", "c-tcu"]


def test_writers_in_several_threads_get_distinct_revisions(gate: Gate) -> None:
    """Writers stand in line: no revision is given twice or left out."""

    def work(number: int) -> None:
        for turn in range(5):
            gate.enrol(f"v-{number}-{turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [change.revision for change in gate.store.changes_from(1, 100)] == list(range(1, 21))


def test_edge_reads_while_a_write_is_open(gate: Gate) -> None:
    """A long enrolment does not keep the edge from its look-ups; it sees the state before."""
    gate.enrol("a")
    with Store.open(gate.config, gate.clock) as reader, gate.store.write("test") as write:
        revoke(write, "acme", "a-tcu", "test")
        record = reader.devices([("acme", "a-tcu")])[("acme", "a-tcu")]
    assert record.credentials[0].status is CredentialStatus.ACTIVE


def test_reader_cannot_write(gate: Gate) -> None:
    """A store opened for reading refuses every write, whatever the file's mode."""
    with (
        Store.open(gate.config, gate.clock) as reader,
        pytest.raises(ControlAway),
        reader.write("edge") as write,
    ):
        write.execute(update(meta).values(value=0))


def test_reader_cannot_read_vins(gate: Gate) -> None:
    """The edge's connection gets pseudonyms only, even where a VIN is on record."""
    gate.enrol("car")
    with gate.store.write("test") as write:
        write.execute(insert(vins), {"tenant": "acme", "vehicle_id": "car", "vin": "WVWZZZ1JZXW000001"})
    with Store.open(gate.config, gate.clock) as reader:
        assert reader.rows(select(vehicles.c.vehicle_id)) == [("car",)]
        with pytest.raises(ControlAway):
            reader.rows(select(vins.c.vin))


def test_database_file_can_be_shared_with_the_group(config: Config, clock: SetClock) -> None:
    """The file has group write mode whatever the umask: a reader of another user needs it."""
    former = os.umask(0o077)
    try:
        Store.open(config, clock, create=True).close()
    finally:
        os.umask(former)
    assert config.path("control.db").stat().st_mode & 0o777 == 0o660


def test_missing_database_is_away_not_empty(config: Config, clock: SetClock) -> None:
    """Nobody who only reads or writes makes an empty one, in which everybody would be unknown."""
    for write in (False, True):
        with pytest.raises(ControlAway, match="fleetgate ca init"):
            Store.open(config, clock, write=write)
    assert not config.path("control.db").exists()


def test_database_that_was_moved_away_is_away_and_comes_back(gate: Gate) -> None:
    """A connection that is open already does not go on with the file that went, and makes none in its place."""
    control, elsewhere = gate.config.path("control.db"), gate.config.path("elsewhere")
    elsewhere.mkdir()
    with Store.open(gate.config, gate.clock) as reader:
        gate.enrol("car")
        gate.store.close()  # so that its log is in the file
        control.rename(elsewhere / control.name)
        for store in (reader, gate.store):
            with pytest.raises(ControlAway):
                store.revision()
        assert not control.exists()
        (elsewhere / control.name).rename(control)
        assert (reader.revision(), gate.store.revision()) == (1, 1)


def test_database_that_was_replaced_is_read_anew(gate: Gate, tmp_path: Path) -> None:
    """Another file under its name is what is read and written from then on, by connections that were open too."""
    control, copy = gate.config.path("control.db"), tmp_path / "copy.db"
    with Store.open(gate.config, gate.clock) as reader:
        with closing(sqlite3.connect(control)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        gate.enrol("car")
        assert reader.revision() == 1
        for leftover in ("control.db-wal", "control.db-shm"):
            gate.config.path(leftover).unlink(missing_ok=True)
        copy.rename(control)
        assert reader.revision() == 0
        gate.enrol("other")
        assert [change.device_id for change in reader.changes_from(1, 9)] == ["other-tcu"]


def test_damaged_database_is_away(config: Config, clock: SetClock) -> None:
    """A file that is no database raises ControlAway, never the driver's own error."""
    config.path("control.db").write_bytes(b"junk" * 4096)
    with pytest.raises(ControlAway, match=r"control\.url"):
        Store.open(config, clock)


def test_locked_database_is_away_after_its_deadline(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that another process keeps out gives up with ControlAway."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 50)
    with Store.open(gate.config, gate.clock, write=True) as store:
        other = sqlite3.connect(gate.config.path("control.db"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ControlAway), store.write("test"):
            pass
        other.close()


def test_database_of_another_version_is_refused(gate: Gate) -> None:
    """Tables of a version this program does not know are not guessed at."""
    with gate.store.write("test") as write:
        write.execute(update(meta).where(meta.c.name == "schema").values(value=99))
    with pytest.raises(ConfigError, match="version"):
        Store.open(gate.config, gate.clock)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://hunter2@h/x", "sqlite:///x.db?mode=ro"]
)
def test_unusable_url_is_named_but_not_quoted(config: Config, clock: SetClock, url: str) -> None:
    """The error names the setting; what is in the URL stays out of it."""
    config = msgspec.structs.replace(config, control=Control(url=url))
    with pytest.raises(ConfigError, match=r"control\.url") as caught:
        Store.open(config, clock, create=True)
    assert "hunter2" not in str(caught.value)


def test_relative_path_starts_at_home(config: Config, clock: SetClock, tmp_path: Path) -> None:
    """A relative SQLite path does not depend on the directory that the process was started in."""
    config = msgspec.structs.replace(config, control=Control(url="sqlite:///sub/records.db"))
    Store.open(config, clock, create=True).close()
    assert (tmp_path / "sub" / "records.db").exists()


def test_batch_answers_for_the_known_and_leaves_out_the_unknown(gate: Gate) -> None:
    """One look-up of many devices tells tenants apart and has no entry for who is not on record."""
    gate.enrol("a")
    gate.enrol("a", tenant="umbra")
    names = [("acme", "a-tcu"), ("umbra", "a-tcu"), ("acme", "ghost"), ("ghost", "a-tcu")]
    found = gate.store.devices(names)
    assert [(record.tenant, record.vehicle_id) for record in found.values()] == [("acme", "a"), ("umbra", "a")]


def test_batch_above_the_limit_is_a_mistake_of_the_caller(gate: Gate) -> None:
    """The bound on one look-up is held, not silently stretched."""
    with pytest.raises(ValueError, match="at most"):
        gate.store.devices([("t", f"d{number}") for number in range(BATCH_LIMIT + 1)])


def test_revoked_credential_is_told_until_it_expires(gate: Gate) -> None:
    """A revoked certificate is known as revoked as long as TLS would accept it, however long ago that was."""
    gate.enrol("a")
    with gate.store.write("test") as write:
        revoke(write, "acme", "a-tcu", "test")
    gate.clock.ms += 300 * DAY_MS
    told = gate.store.devices([("acme", "a-tcu")])[("acme", "a-tcu")].credentials
    gate.clock.ms += 100 * DAY_MS
    expired = gate.store.devices([("acme", "a-tcu")])[("acme", "a-tcu")].credentials
    assert ([credential.status for credential in told], expired) == ([CredentialStatus.REVOKED], ())


def test_a_part_of_a_transaction_is_undone_alone(gate: Gate) -> None:
    """Its rows, its change and its audit entry; the others stand."""
    with gate.store.write("test") as write:
        for vehicle, good in (("a", True), ("b", False), ("c", True)):
            with suppress(Conflict), write.part():
                enrol(write, gate.authority, gate.keyring, "acme", vehicle)
                if not good:
                    raise Conflict("a test")
    assert [line.device_id for line in list_devices(gate.store)] == ["a-tcu", "c-tcu"]
    assert [(change.revision, change.device_id) for change in gate.store.changes_from(1, 9)] == [
        (1, "a-tcu"),
        (2, "c-tcu"),
    ]
    assert [row.object for row in gate.store.rows(select(audit.c.object))] == ["device/a-tcu", "device/c-tcu"]
