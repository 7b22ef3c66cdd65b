"""The one client of ClickHouse, and its way to a server by URL; the way to an embedded one is in embedded.py.

Decides how a statement travels and what a failure means: `ClickHouseAway` (the same again later) or `Refused` (this
data, never). What is inserted, and when it is tried again, is the loader's business.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import clickhouse_connect
import msgspec
import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError
from urllib3.exceptions import HTTPError

from fleetgate.errors import ClickHouseAway, ConfigError

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
        write_arrow(sink, rows)
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


def write_arrow(sink: Any, rows: pa.Table) -> None:
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
