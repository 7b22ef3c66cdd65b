"""A small SQLite file of the edge's own, beside the segments: durable when a write returns, whole when a read does.

Decides how such a file is opened and what an error of it means (SpoolError, the edge stops). What stands in it is
decided by `checkpoint` and `accept.denials`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetgate.errors import SpoolError


class Database:
    """Safe to use from several threads: one lock, so that no read sees half a write on the shared connection."""

    def __init__(self, path: Path, schema: str, *, write: bool = True) -> None:
        """Without `write` it changes nothing in the file, which must be there, beside an edge that does."""
        self._path = path
        self._may_write = write
        self._lock = threading.Lock()
        with self._told("open"):
            if not write:
                uri = f"{path.absolute().as_uri()}?mode=ro"
                self._db = sqlite3.connect(uri, uri=True, timeout=5, isolation_level=None, check_same_thread=False)
                return
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(schema)

    def add_columns(self, table: str, *integers: str, **others: str) -> None:
        """Those that the file of a former fleetgate lacks: integers, 0 at first, and others with their declaration.
        Raises SpoolError where that may not be changed."""
        columns = dict.fromkeys(integers, "INTEGER NOT NULL DEFAULT 0") | others
        missing = columns.keys() - self._columns(table)
        self._alter(table, [f"ADD COLUMN {name} {columns[name]}" for name in columns if name in missing])

    def drop_columns(self, table: str, *names: str) -> None:
        """Those that the file of a former fleetgate has, and that nobody fills any more. Raises SpoolError as well."""
        surplus = self._columns(table) & set(names)
        self._alter(table, [f"DROP COLUMN {name}" for name in sorted(surplus)])

    def _columns(self, table: str) -> set[str]:
        return {name for _, name, *_ in self.rows(f"PRAGMA table_info({table})")}

    def _alter(self, table: str, changes: list[str]) -> None:
        if changes and not self._may_write:
            raise SpoolError(f"{self._path} is of a former fleetgate: start the edge on it first")
        if changes:
            with self.writing() as db:
                for change in changes:
                    db.execute(f"ALTER TABLE {table} {change}")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Several queries that belong together."""
        with self._lock, self._told("read"):
            yield self._db

    @contextmanager
    def writing(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction, durable when it returns; where not `synced`, durable with the next one that is.

        The log is one file in the order of the transactions, so a synced one takes all before it along, and a crash
        before that leaves the database as it was at the end of some earlier one.
        """
        with self._lock, self._told("write"):
            self._db.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # a full disk ends it by itself, and its error is the one to tell
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        with self.reading() as db:
            return db.execute(sql, values).fetchall()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SpoolError(
                f"cannot {what} {self._path}: {error}; the edge stops, mend the spool's disk or restore the file; "
                "or see what `fleetgate spool repair` can do without it"
            ) from None
