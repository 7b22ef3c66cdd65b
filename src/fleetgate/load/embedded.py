"""An embedded ClickHouse: chdb on a directory that this process owns.

Decides how rows get into it, and that a crash ends the process all the same. Importing this loads chdb, half a
gigabyte of code: only whoever opens the embedded one does.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import chdb
import pyarrow as pa

from fleetgate.errors import ClickHouseAway, ConfigError
from fleetgate.load.clickhouse import Parameters, decode_rows, failure, insert_settings, write_arrow
from fleetgate.load.memory import release
from fleetgate.lock import Taken, hold

CONFIGURATION = Path(__file__).with_name("chdb.xml")
_CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS, signal.SIGTRAP)


class EmbeddedClickHouse:
    """chdb on a directory that this process owns. One handle writes, under one lock; readers open their own.

    Not through clickhouse-connect's chdb client, which writes each block to a temporary file on disk first.
    """

    def __init__(self, directory: Path, database: str) -> None:
        """Raises ClickHouseAway while another process owns the directory, ConfigError where it cannot be used. For the
        main thread."""
        self.directory = directory
        self.database = database
        self._lock = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            owned_elsewhere = _owned_elsewhere(directory)
        except OSError as error:
            raise ConfigError(
                f"clickhouse.url: cannot use {error.filename}: {error.strerror}; {directory} and all in it must belong "
                "to the user that load runs as"
            ) from None
        if owned_elsewhere:
            raise ClickHouseAway(f"another process owns {directory}: stop it, or reach it over HTTP")
        try:
            self._handle = chdb.connect(f"{directory.resolve()}?config-file={CONFIGURATION}")
        except RuntimeError as error:
            raise failure(str(error)) from None
        _crashes_end_the_process()
        self.command(f"CREATE DATABASE IF NOT EXISTS {database}")
        self.command(f"USE {database}")

    def handle(self) -> Any:
        """A handle of its own (0.3 ms), with its own settings; the caller closes it."""
        return chdb.connect(str(self.directory.resolve()))

    def command(self, sql: str, parameters: Parameters | None = None) -> None:
        self._query(sql, parameters or {})

    def rows(self, sql: str, parameters: Parameters | None = None) -> list[list[Any]]:
        return decode_rows(self.raw(sql, "JSONCompactEachRow", parameters))

    def raw(self, sql: str, output_format: str, parameters: Parameters | None = None) -> bytes:
        return self._query(f"{sql}\nFORMAT {output_format}", parameters or {})

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        clause = f" SETTINGS {insert_settings(token)}"
        release(self._purge)
        with self._lock:
            try:
                insert_data(self._handle, f"INSERT INTO {table} ({_columns(rows)})", clause, "ArrowStream", rows)
            except (RuntimeError, chdb.ChdbError) as error:
                raise failure(str(error)) from None
        release(self._purge)

    def _purge(self) -> None:
        self.command("SYSTEM JEMALLOC PURGE")

    def close(self) -> None:
        with self._lock:
            self._handle.close()

    def _query(self, sql: str, parameters: Parameters) -> bytes:
        with self._lock:
            try:
                result = self._handle.query(sql, "TabSeparated", params={k: str(v) for k, v in parameters.items()})
            except (RuntimeError, chdb.ChdbError) as error:  # which of the two differs by version
                raise failure(str(error)) from None
            return bytes(result.bytes() or b"")


def insert_data(handle: Any, target: str, settings: str, input_format: str, data: bytes | pa.Table) -> int:
    """Inserts `data` through a chdb handle and returns the rows read; `target` is INSERT INTO …, `settings` a clause.

    The data stands in memory under a file's name. chdb's own streaming insert (`send_insert`, chdb 4.4) cannot be used:
    it reports success for rows that were refused, and an insert inside the statement's text is cut at 1 MiB.
    """
    descriptor = os.memfd_create("insert", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            write_arrow(file, data)  # straight into it: a segment's rows are up to 60 MB
        file.flush()
        infile = f"FROM INFILE '/proc/self/fd/{descriptor}'"
        result = handle.query(f"{target} {infile}{settings} FORMAT {input_format}", "TabSeparated")
    return int(result.rows_read())


def _owned_elsewhere(directory: Path) -> bool:
    """Asks ClickHouse's own lock. Trying to open chdb instead would work too, but prints a stack trace each time.
    Raises OSError."""
    try:
        os.close(hold(directory / "status", os.O_RDWR))
    except FileNotFoundError:
        return False
    except Taken:
        return True
    return False


def _crashes_end_the_process() -> None:
    """chdb's start has crashes handled by chdb, and in its handler it waits for ever: a service manager would not see
    that the process is gone."""
    for number in _CRASHES:
        signal.signal(number, signal.SIG_DFL)


def _columns(rows: pa.Table) -> str:
    return ", ".join(rows.column_names)
