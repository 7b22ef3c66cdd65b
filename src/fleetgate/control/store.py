"""The control database: how it is opened, read and written, and what a failure of it looks like.

Invariants
- Every write of a device's records is one transaction that holds its rows, a row of `changes` with the next revision,
  and a row of `audit`, which is a chain (`control.auditchain`).
- Writers stand in line (BEGIN IMMEDIATE), so that revisions appear in their order and a reader who saw revision n has
  seen all before it. (On a database server the lock of the revision's row would do that; `control.database` opens
  SQLite alone.)
- A store opened for reading cannot write, and cannot read VINs.
- In a transaction of writing, a credential whose revocation has taken effect has the status `revoked`.
- A database of an older version is brought to this one by whoever opens it for writing (`control.migrations`).
- Whatever goes wrong in the database is ControlAway. That is never a reason to let anybody in, or to say "unknown".

What the rows mean is decided by `control.devices` and `control.quarantine`. Safe to use from several threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Self

import msgspec
from sqlalchemy import (
    Connection,
    Engine,
    Executable,
    Row,
    Table,
    Update,
    and_,
    func,
    insert,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.sql import Select

from fleetgate.clock import Clock
from fleetgate.config import Config
from fleetgate.control.auditchain import append
from fleetgate.control.database import WRITING, answering, open_engine
from fleetgate.control.lookup import device_record, devices_query
from fleetgate.control.migrations import OLDEST_VERSION, migrate
from fleetgate.control.records import (
    Change,
    CredentialStatus,
    DeviceRecord,
)
from fleetgate.control.schema import (
    SCHEMA_VERSION,
    changes,
    credentials,
    meta,
    metadata,
)
from fleetgate.errors import ConfigError

ENROLMENT = "enrol"
"""The kind of change by which a device is new, or known again: it may lift a refusal."""
RENEWAL = "renew"
"""The kind of change by which a device gets its next credential, be it by itself: it lifts no refusal."""
TRANSITION = "transition"
"""The kind of change that a machine makes: it may refuse a device, and never lifts a refusal."""
SUSPICION = "suspicion"
"""The kind of change by which load says what it saw of devices (`control.suspicions`); it names none of them."""
REFUSES_NOBODY = frozenset({ENROLMENT, RENEWAL, SUSPICION})
LIFTS_NOTHING = frozenset({RENEWAL, TRANSITION, SUSPICION})
"""Every other kind is a person's decision, which may do both."""
BATCH_LIMIT = 500  # devices looked up in one query: keeps it near 5 ms and below every limit on bound values
PAUSE_SECONDS = 0.15
"""Between two transactions of somebody who has many. SQLite knows no queue: who waits for it looks again each 100 ms,
and back to back they would keep a revocation out for seconds."""


class Write:
    """One transaction of writing. `record` says what was done; without it no device's records may be changed."""

    def __init__(self, connection: Connection, revision: int, actor: str, now_ms: int) -> None:
        self._connection = connection
        self._first_revision = revision + 1
        self._actor = actor
        self._changes: list[dict[str, Any]] = []
        self._audit: list[dict[str, Any]] = []
        self.now_ms = now_ms

    @property
    def actor(self) -> str:
        return self._actor

    def rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        return self._connection.execute(query).all()

    def row(self, query: Select[Any]) -> Row[Any] | None:
        return self._connection.execute(query).first()

    def execute(
        self, statement: Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        self._connection.execute(statement, values)

    @contextmanager
    def part(self) -> Iterator[None]:
        """What is done in the block is undone alone when anything is raised in it; the transaction goes on."""
        changes, audit = len(self._changes), len(self._audit)
        try:
            with self._connection.begin_nested():
                yield
        except BaseException:
            del self._changes[changes:], self._audit[audit:]
            raise

    def record(self, action: str, tenant: str, device_id: str, detail: Mapping[str, Any]) -> None:
        """Makes a change of a device known to edges and to the audit; `detail` holds no key material."""
        self._change(action, tenant, device_id)
        self.note(action, tenant, f"device/{device_id}", detail)

    def announce(self, kind: str) -> int:
        """Makes something that is no decision about a device known to edges alone; the revision that tells of it."""
        return self._change(kind, "", "")

    def _change(self, kind: str, tenant: str, device_id: str) -> int:
        revision = self._first_revision + len(self._changes)
        self._changes.append(
            {"revision": revision, "kind": kind, "tenant": tenant, "device_id": device_id, "at_ms": self.now_ms}
        )
        return revision

    def note(self, action: str, tenant: str, what: str, detail: Mapping[str, Any]) -> None:
        """Makes something known to the audit alone: no edge has to know it. The tenant may be empty: the gate's own."""
        self._audit.append(
            {
                "at_ms": self.now_ms,
                "actor": self._actor,
                "action": action,
                "tenant": tenant,
                "object": what,
                "detail": msgspec.json.encode(detail).decode(),
            }
        )

    def flush(self) -> None:
        """Writes what was recorded, at the end of the transaction."""
        if self._audit:
            append(self._connection, self._audit)
        if not self._changes:
            return
        self._connection.execute(insert(changes), self._changes)
        newest = self._changes[-1]["revision"]
        self._connection.execute(update(meta).where(meta.c.name == "revision").values(value=newest))


class Store:
    """The control records behind one URL. Every method raises ControlAway when the database does not answer."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self.clock = clock

    @classmethod
    def open(cls, config: Config, clock: Clock, *, write: bool = False, create: bool = False) -> Store:
        """Open the database of `control.url`, for writing too if that is wanted; with `create` it is begun where there
        is none. Nobody else makes one: in the place of records that are only away it would know nobody.

        Raises ConfigError for a URL that cannot be used, ControlAway for a database that cannot be opened.
        """
        store = cls(open_engine(config, write=write or create, create=create), clock)
        with answering():
            if create:
                store._create_tables()
            elif write:
                store._bring_up_to_date()
            store._check_version()
        return store

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading

    def rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with answering(), self._engine.connect() as connection:
            return connection.execute(query).all()

    def each(self, query: Select[Any], at_once: int) -> Iterator[Row[Any]]:
        """What `rows` gives, with no more than `at_once` in memory. It is one look at the records: what is written
        meanwhile is not among them, and nothing is left out between two parts."""
        with answering(), self._engine.connect() as connection:
            for rows in connection.execute(query).partitions(at_once):
                yield from rows

    def faults(self, table: Table) -> list[str]:
        """What the database itself finds wrong with this table and its indexes; it looks rows up in an index without
        comparing them with the table."""
        with answering(), self._engine.connect() as connection:
            told = connection.exec_driver_sql(f"PRAGMA integrity_check({table.name})").scalars().all()
        return [str(line) for line in told if line != "ok"]

    def has_table(self, table: Table) -> bool:
        """Whether these records have this table: they may be of a former fleetgate, and not written to since."""
        with answering():
            return inspect(self._engine).has_table(table.name)

    def revision(self) -> int:
        """The newest revision; an edge that knows a higher one talks to a restored database."""
        return int(self.rows(_REVISION)[0].value)

    def changes_from(self, revision: int, limit: int) -> list[Change]:
        """At most `limit` changes from `revision` on, oldest first. It is among them, so that an edge that stands there
        sees whether it is still the same change."""
        return self._changes(select(changes).where(changes.c.revision >= revision), limit)

    def changes_that_refuse(self, revision: int, through: int, limit: int) -> list[Change]:
        """The same up to `through`; between these two, which are among them, only those that may refuse somebody."""
        of_interest = or_(changes.c.kind.not_in(REFUSES_NOBODY), changes.c.revision.in_((revision, through)))
        between = and_(changes.c.revision >= revision, changes.c.revision <= through, of_interest)
        return self._changes(select(changes).where(between), limit)

    def devices(self, names: Sequence[tuple[str, str]]) -> dict[tuple[str, str], DeviceRecord]:
        """The records of at most 500 (tenant, device id) in one query; who is absent from the answer is unknown.

        Left out are credentials that no step of the judge looks at: ended more than 30 days ago and, where revoked,
        expired as well.
        """
        if not names:
            return {}
        if len(names) > BATCH_LIMIT:
            raise ValueError(f"at most {BATCH_LIMIT} devices in one look-up")
        now_ms = self.clock.now_ms()
        rows = self.rows(devices_query(names, now_ms))
        grouped = groupby(rows, key=lambda row: (str(row.tenant), str(row.device_id)))
        return {name: device_record(list(of_device), now_ms) for name, of_device in grouped}

    def _changes(self, query: Select[Any], limit: int) -> list[Change]:
        rows = self.rows(query.order_by(changes.c.revision).limit(limit))
        return [Change(row.revision, row.kind, row.tenant, row.device_id, row.at_ms) for row in rows]

    # Writing

    @contextmanager
    def write(self, actor: str) -> Iterator[Write]:
        """One transaction: committed at the end of the block, undone when anything is raised in it."""
        with answering(), self._engine.connect() as connection:
            connection = connection.execution_options(**{WRITING: True})
            with connection.begin():
                revision = connection.execute(_REVISION.with_for_update()).scalar_one()
                write = Write(connection, revision, actor, self.clock.now_ms())
                write.execute(_settle_revocations(write.now_ms))
                yield write
                write.flush()

    def _bring_up_to_date(self) -> None:
        with self._engine.connect() as connection:
            connection = connection.execution_options(**{WRITING: True})
            with connection.begin():
                migrate(connection, self.clock.now_ms())

    def _create_tables(self) -> None:
        with self._engine.connect() as connection:
            connection = connection.execution_options(**{WRITING: True})
            with connection.begin():
                if inspect(connection).has_table(meta.name):
                    migrate(connection, self.clock.now_ms())
                    return
                metadata.create_all(connection)
                if connection.execute(select(func.count()).select_from(meta)).scalar_one() == 0:
                    rows = [{"name": "schema", "value": SCHEMA_VERSION}, {"name": "revision", "value": 0}]
                    connection.execute(insert(meta), rows)

    def _check_version(self) -> None:
        versions = [row.value for row in self.rows(select(meta.c.value).where(meta.c.name == "schema"))]
        if versions == [SCHEMA_VERSION]:
            return
        if versions and OLDEST_VERSION <= versions[0] < SCHEMA_VERSION:
            raise ConfigError(
                f"the control database of control.url is of version {versions[0]}, from an earlier fleetgate: end all "
                "processes of that one; `fleetgate up` and `fleetgate load` of this one bring it to version "
                f"{SCHEMA_VERSION}"
            )
        raise ConfigError(
            f"the control database of control.url is not of version {SCHEMA_VERSION}: "
            "use the fleetgate that made it, or another database"
        )


_REVISION = select(meta.c.value).where(meta.c.name == "revision")


def _settle_revocations(now_ms: int) -> Update:
    """Writes down what has come to pass. The decision was told to edges and audit when it was taken."""
    due = and_(credentials.c.revoked_from_ms <= now_ms, credentials.c.status != CredentialStatus.REVOKED)
    ended_at_ms = func.coalesce(credentials.c.ended_at_ms, credentials.c.revoked_from_ms)
    return update(credentials).where(due).values(status=CredentialStatus.REVOKED, ended_at_ms=ended_at_ms)
