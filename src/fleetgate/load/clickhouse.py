"""The one client of ClickHouse: an embedded one that this process owns, or a server by URL, behind one protocol.

Decides how a statement travels and what a failure means: `ClickHouseAway` (the same again later) or `Refused` (this
data, never). What is inserted, and when it is tried again, is the loader's business.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import chdb
import clickhouse_connect
import msgspec
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from fleetgate.errors import ClickHouseAway, ConfigError
from fleetgate.load.memory import release
from fleetgate.lock import Taken, hold

logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # what it would say, our errors say

Parameters = Mapping[str, str | int]

INSERT_SETTINGS: Mapping[str, str | int] = {
    "async_insert": 0,  # the server's default may be 1; an acknowledged insert must be on disk
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "input_format_parallel_parsing": 0,  # blocks, and with them their tokens, must be cut the same way each time
}


def insert_settings(token: str) -> str:
    """For the SETTINGS of an INSERT whose rows ClickHouse has already."""
    settings = ", ".join(f"{name} = {value}" for name, value in INSERT_SETTINGS.items())
    return f"{settings}, insert_deduplication_token = '{token}'"


CONFIGURATION = Path(__file__).with_name("chdb.xml")

CONTENT_CODES = frozenset(
    {
        6,  # CANNOT_PARSE_TEXT
        27,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
        33,  # CANNOT_READ_ALL_DATA
        69,  # ARGUMENT_OUT_OF_BOUND
        117,  # INCORRECT_DATA
        131,  # TOO_LARGE_STRING_SIZE
        190,  # SIZES_OF_ARRAYS_DONT_MATCH
        321,  # VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
        349,  # CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
        469,  # VIOLATED_CONSTRAINT
        691,  # UNKNOWN_ELEMENT_OF_ENUM
    }
)
"""Only these say that the rows themselves are at fault. A missing table, a full disk or a wrong password would refuse
every segment alike: those wait for a person, and nothing is set aside."""

_CODE = re.compile(r"Code: (\d+)")


class Refused(Exception):
    """ClickHouse will never take these rows; `code` is ClickHouse's number of the error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Answered(ClickHouseAway):
    """ClickHouse is there and says no, but not for the rows' sake; `code` is its number of the error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ClickHouse(Protocol):
    """Every method raises ClickHouseAway or Refused, and may be called from any thread."""

    def command(self, sql: str, parameters: Parameters | None = None) -> None:
        """Runs a statement without a result."""

    def rows(self, sql: str, parameters: Parameters | None = None) -> list[list[Any]]:
        """The rows of a SELECT; values of `{name:Type}` come from `parameters`."""

    def raw(self, sql: str, output_format: str, parameters: Parameters | None = None) -> bytes:
        """The answer in one of ClickHouse's output formats."""

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        """Inserts durably; a repetition with the same token and rows changes nothing."""

    def close(self) -> None: ...


def failure(message: str) -> ClickHouseAway | Refused:
    """What the text of a ClickHouse error means to the loader."""
    start = message.find("Code: ")
    text = message[max(start, 0) :].strip().split("\n")[0][:500]
    match = _CODE.search(text)
    code = int(match.group(1)) if match else 0
    if code in CONTENT_CODES:
        return Refused(code, text)
    if code:
        return Answered(code, text)
    return ClickHouseAway(f"ClickHouse does not answer: {text or 'no reason given'}")


class EmbeddedClickHouse:
    """chdb on a directory that this process owns. One handle writes, under one lock; readers open their own.

    Not through clickhouse-connect's chdb client, which writes each block to a temporary file on disk first.
    """

    def __init__(self, directory: Path, database: str) -> None:
        """Raises ClickHouseAway while another process owns the directory, ConfigError where it cannot be used."""
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


class ServerClickHouse:
    """A ClickHouse server over HTTP, or the owner of an embedded one. Connects when first used."""

    def __init__(self, url: str, database: str, user: str, password: str) -> None:
        self.database = database
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ConfigError(f"clickhouse.url: {url} is neither chdb://DIRECTORY nor http(s)://HOST:PORT")
        self._arguments: dict[str, Any] = {
            "interface": parts.scheme,
            "host": parts.hostname,
            "port": parts.port or (8443 if parts.scheme == "https" else 8123),
            "username": user,
            "password": password,
            "autogenerate_session_id": False,  # one client serves several threads
            "compress": False,  # a local or nearby server; the columns are compressed on its disk
            "connect_timeout": 5,
            "send_receive_timeout": 120,
        }
        self._lock = threading.Lock()
        self._client: Any = None

    def command(self, sql: str, parameters: Parameters | None = None) -> None:
        self._call("command", sql, parameters=dict(parameters or {}))

    def rows(self, sql: str, parameters: Parameters | None = None) -> list[list[Any]]:
        return decode_rows(self.raw(sql, "JSONCompactEachRow", parameters))

    def raw(self, sql: str, output_format: str, parameters: Parameters | None = None) -> bytes:
        result = self._call("raw_query", sql, parameters=dict(parameters or {}), fmt=output_format)
        return bytes(result)

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        settings = {**INSERT_SETTINGS, "insert_deduplication_token": token}
        sink = pa.BufferOutputStream()
        _write_arrow(sink, rows)
        data = bytes(memoryview(sink.getvalue()))
        self._call("raw_insert", table, rows.column_names, data, settings=settings, fmt="ArrowStream")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        try:
            with self._lock:
                if self._client is None:
                    self._client = self._connect()
            return getattr(self._client, method)(*arguments, **options)
        except (ClickHouseError, HTTPError, OSError) as error:  # the last two when an answer breaks off
            raise failure(str(error)) from None

    def _connect(self) -> Any:
        client = clickhouse_connect.get_client(**self._arguments)
        if client.command(f"EXISTS DATABASE {self.database}") == 0:
            client.command(f"CREATE DATABASE IF NOT EXISTS {self.database}")
        client.database = self.database
        return client


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
            _write_arrow(file, data)  # straight into it: a segment's rows are up to 60 MB
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


def _columns(rows: pa.Table) -> str:
    return ", ".join(rows.column_names)


def _write_arrow(sink: Any, rows: pa.Table) -> None:
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)


_decode_row = msgspec.json.Decoder(list[Any]).decode


def decode_rows(lines: bytes) -> list[list[Any]]:
    """The rows of JSONCompactEachRow. A String may hold any bytes, and somebody else may have put them there: what is
    not UTF-8 becomes U+FFFD, which is in nothing that load compares, and ends no look at the other rows."""
    try:
        return [_decode_row(line) for line in lines.splitlines() if line]
    except UnicodeDecodeError:
        return [_decode_row(line.decode(errors="replace")) for line in lines.splitlines() if line]
