"""One request to an embedded ClickHouse: a statement and its parameters in, an answer or ClickHouse's error out.

Decides how parameters become settings, what a reader's limits are, and which HTTP status an error of ClickHouse's
has. Who the asker is, and how bytes travel, is owner.py's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from fleetgate.load import statement
from fleetgate.load.embedded import EmbeddedClickHouse, insert_data

READER_SETTINGS = {
    "max_execution_time": "60",
    "max_memory_usage": str(2 * 1024**3),
    "max_result_bytes": str(256 * 1024**2),
    "max_threads": "2",
}
_NOT_SETTINGS = frozenset(
    {
        "query",
        "database",
        "default_format",
        "query_id",
        "quota_key",
        "session_id",
        "session_check",
        "session_timeout",
        "user",
        "wait_end_of_query",
        "buffer_size",
        "compress",
        "decompress",
        "client_protocol_version",
        "role",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "enable_http_compression",
        "cancel_http_readonly_queries_on_client_close",
    }
)
"""Parameters that ClickHouse's HTTP layer takes for itself; every other one is a setting of the statement."""

_SETTING = re.compile(r"[a-z_][a-z0-9_]*", re.IGNORECASE)
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CODE = re.compile(r"Code: (\d+)")
_STATUS = {
    36: 400,  # BAD_ARGUMENTS
    46: 404,  # UNKNOWN_FUNCTION
    47: 404,  # UNKNOWN_IDENTIFIER
    60: 404,  # UNKNOWN_TABLE
    62: 400,  # SYNTAX_ERROR
    81: 404,  # UNKNOWN_DATABASE
    115: 404,  # UNKNOWN_SETTING
    159: 408,  # TIMEOUT_EXCEEDED
    164: 403,  # READONLY
    202: 503,  # TOO_MANY_SIMULTANEOUS_QUERIES
    497: 403,  # ACCESS_DENIED
    516: 403,  # AUTHENTICATION_FAILED
}
"""HTTP status of ClickHouse's errors, as a server gives them; 500 for those not named."""


class Failed(Exception):
    """A request ends with this error of ClickHouse's: its number, its text, the HTTP status."""

    def __init__(self, code: int, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.status = status if status is not None else _STATUS.get(code, 500)


class Answer(NamedTuple):
    body: bytes
    headers: dict[str, str]


def answer(engine: EmbeddedClickHouse, request: bytes, parameters: Mapping[str, str], writer: bool) -> Answer:
    """Runs `request` (statement, then data) on a handle, and so with settings, of its own. Raises Failed."""
    insert = statement.split_insert(request) if writer else None
    try:
        sql = request.decode() if insert is None else insert.target
    except UnicodeDecodeError:
        raise Failed(62, "Code: 62. DB::Exception: Syntax error: the query is not UTF-8. (SYNTAX_ERROR)") from None
    if not sql.strip():
        raise Failed(62, "Code: 62. DB::Exception: Syntax error: empty query. (SYNTAX_ERROR)")
    if not writer:
        try:
            statement.check_reading(sql)
        except statement.NotAllowed as error:
            raise Failed(497, f"Code: 497. DB::Exception: Not enough privileges: {error}. (ACCESS_DENIED)") from None
    handle = engine.handle()
    try:
        _prepare(handle, parameters, writer)
        return _insert(handle, insert) if insert is not None else _query(handle, sql, parameters)
    except Failed:
        raise
    except Exception as error:  # chdb has no error type of its own that holds for all its calls
        raise _failed(str(error)) from None
    finally:
        handle.close()


def _prepare(handle: Any, parameters: Mapping[str, str], writer: bool) -> None:
    database = parameters.get("database", "default")
    if not _DATABASE.fullmatch(database):
        raise Failed(81, f"Code: 81. DB::Exception: Database {database!r} does not exist. (UNKNOWN_DATABASE)")
    handle.query(f"USE {database}")
    settings = {} if writer else dict(READER_SETTINGS)
    for name, value in parameters.items():
        if name in _NOT_SETTINGS or name.startswith("param_"):
            continue
        if not _SETTING.fullmatch(name):
            raise Failed(115, f"Code: 115. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)")
        if writer or name not in (*READER_SETTINGS, "readonly"):  # a reader cannot lift its own limits
            settings[name] = value
    for name, value in settings.items():
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        handle.query(f"SET {name} = '{quoted}'")
    if not writer:
        handle.query("SET readonly = 1")


def _query(handle: Any, sql: str, parameters: Mapping[str, str]) -> Answer:
    binds = {name[6:]: value for name, value in parameters.items() if name.startswith("param_")}
    default = parameters.get("default_format", "TabSeparated")
    result = handle.query(sql, default, params=binds)
    summary = {
        "read_rows": str(result.rows_read()),
        "read_bytes": str(result.bytes_read()),
        "elapsed_ns": str(int(result.elapsed() * 1_000_000_000)),
    }
    headers = {"X-ClickHouse-Summary": json.dumps(summary)}
    if statement.gives_rows(sql):
        headers["X-ClickHouse-Format"] = statement.trailing_format(sql) or default
    return Answer(bytes(result.bytes() or b""), headers)


def _insert(handle: Any, insert: statement.Insert) -> Answer:
    rows = insert_data(handle, insert.target, insert.settings, insert.input_format, insert.data)
    return Answer(b"", {"X-ClickHouse-Summary": json.dumps({"written_rows": str(rows)})})


def _failed(message: str) -> Failed:
    text = message[max(message.find("Code: "), 0) :].strip()
    match = _CODE.search(text)
    return Failed(int(match.group(1)) if match else 1002, text)
