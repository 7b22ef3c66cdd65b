"""Opens the control database: which file, with which guarantees, and what a failure of it looks like.

SQLite with a write-ahead log, so that an edge reads while a person writes; every commit is synced. A connection
opened for reading is an ordinary one with `query_only` (a read-only open of a write-ahead log fails for another user
while no writer has it open), so the file carries group write mode. It cannot read what tells who a car is either. A
file that goes or is replaced while it is open is noticed with the next transaction: a connection to what was there
before would be believed for ever. What the tables hold is decided by `control.schema`, how transactions are used by
`control.store`.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from fleetgate.config import Config
from fleetgate.errors import ConfigError, ControlAway

BUSY_TIMEOUT_MS = 5_000  # a writer's transaction takes a few milliseconds; this waits out a long enrolment
POOL_SIZE = 4  # connections, one for each thread at work; more threads wait for one, as long as for a busy database
_NAMES = frozenset({"vins", "transfers"})  # tables that tell which car a pseudonym is, or was
WRITING = "fleetgate_write"  # execution option of a connection whose transaction takes the write lock at its begin


class _File(sqlite3.Connection):
    """A connection that knows which file it is to: device and inode."""

    file: tuple[int, int] | None = None


def open_engine(config: Config, *, write: bool, create: bool = False) -> Engine:
    """An engine on the database of `control.url`; only with `create` the file is made where there is none.

    Raises ConfigError for a URL that cannot be used, ControlAway where there is no such database.
    """
    url, path = _locate(config)
    if create:
        _create_file(path)
    elif not path.exists():
        raise ControlAway(f"there is no control database {path} (control.url): make it with `fleetgate ca init`")

    def connect() -> _File:
        file = _identity(path)  # before it is opened: replaced in between, the next transaction notices
        # mode=rw: where the file is away none is made, empty, in the place of the one that comes back.
        uri = f"{path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_TIMEOUT_MS / 1000, check_same_thread=False, factory=_File
        )
        connection.file = file
        return connection

    engine = create_engine(
        url,
        creator=connect,
        hide_parameters=True,  # an error's text may reach a log; values do not belong there
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_MS / 1000,
    )

    def connected(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions begin where `begun` says so, not where the driver guesses
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        if not write:
            connection.execute("PRAGMA query_only=ON")
            connection.set_authorizer(_without_names)

    def begun(connection: Connection) -> None:
        writing = connection.get_execution_options().get(WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    def taken(connection: _File, *_: object) -> None:
        if connection.file != _identity(path):
            raise DisconnectionError("the file of the control database is another one now")  # the pool connects anew

    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", taken)
    event.listen(engine, "begin", begun)
    return engine


@contextmanager
def answering() -> Iterator[None]:
    """Turns every database error into ControlAway; a person is told its kind, `--debug` the rest."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        told = getattr(error, "orig", None) or error
        kind = type(told).__name__
        if getattr(told, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise ControlAway(
                "the file that control.url names is no SQLite database: restore it from its backup"
            ) from error
        raise ControlAway(
            f"the control database of control.url does not answer ({kind}): "
            "check that its file and directory are readable and writable, and that its disk is not full"
        ) from error


def _locate(config: Config) -> tuple[URL, Path]:
    """The URL with its path made absolute. The setting is never quoted in an error: a URL may hold a password."""
    try:
        url = make_url(config.control.url)
    except ArgumentError:
        raise ConfigError('control.url is not a database URL: write "sqlite:///control.db"') from None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:") or url.query:
        raise ConfigError('control.url must name an SQLite file, such as "sqlite:///control.db"')
    path = config.path(str(url.database))
    return url.set(drivername="sqlite+pysqlite", database=str(path)), path


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _create_file(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o660)
        try:
            os.fchmod(descriptor, 0o660)  # whatever the umask: the edge's user reads it through the group
        finally:
            os.close(descriptor)
    except FileExistsError:
        return
    except OSError as error:
        raise ControlAway(f"cannot make the control database {path} (control.url): {error.strerror}") from None


def _without_names(action: int, table: str | None, *_rest: Any) -> int:
    refused = action == sqlite3.SQLITE_READ and table in _NAMES
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK
