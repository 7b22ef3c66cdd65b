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

    def add_columns(self, table: str, *columns: str) -> None:
        """Those of these definitions (name first, with a default) that the file of a former fleetgate lacks. Raises
        SpoolError where that may not be changed."""
        there = {name for _, name, *_ in self.rows(f"PRAGMA table_info({table})")}
        missing = [column for column in columns if column.partition(" ")[0] not in there]
        if not missing:
            return
        if not self._may_write:
            raise SpoolError(f"{self._path} is of a former fleetgate: start the edge on it first")
        with self.writing() as db:
            for column in missing:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")

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
