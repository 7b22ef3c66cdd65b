"""The HTTP interface of the embedded ClickHouse, asked by an ordinary client and by hand."""

from __future__ import annotations

import http.client
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from fleetgate.errors import ConfigError
from fleetgate.load.embedded import EmbeddedClickHouse
from fleetgate.load.owner import MAX_REQUEST_BYTES, Owner

DATABASE = "fleetgate_test"  # as in conftest
READER, WRITER = "a reader's token", "a writer's token"


def connect(owner: Owner, token: str) -> Any:
    host, _, port = owner.url.removeprefix("http://").rpartition(":")
    return clickhouse_connect.get_client(
        host=host, port=int(port), username="default", password=token, database=DATABASE, autogenerate_session_id=False
    )


@pytest.fixture(scope="module")
def reader(owner: Owner) -> Iterator[Any]:
    client = connect(owner, READER)
    yield client
    client.close()


@pytest.fixture(scope="module")
def writer(owner: Owner) -> Iterator[Any]:
    client = connect(owner, WRITER)
    client.command("CREATE TABLE IF NOT EXISTS notes (a UInt32, b String) ENGINE = MergeTree ORDER BY a")
    yield client
    client.command("DROP TABLE notes")
    client.close()


def by_hand(owner: Owner, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, str | None]:
    """(status, body, ClickHouse's number of the error) of one plain request."""
    connection = http.client.HTTPConnection(owner.url.removeprefix("http://"), timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    response = connection.getresponse()
    answer = response.status, response.read(), response.headers.get("X-ClickHouse-Exception-Code")
    connection.close()
    return answer


def test_a_client_reads_rows_with_parameters(reader: Any) -> None:
    """Native format, typed parameters and text with quotes work as with a server."""
    found = reader.query(
        "SELECT number, {s:String} FROM signals WHERE path = {p:String}",
        parameters={"p": "Vehicle.Speed", "s": "it's"},
    )
    assert found.result_rows == [(1, "it's")]


def test_a_client_reads_arrow(reader: Any) -> None:
    """Arrow answers arrive whole."""
    table = reader.query_arrow("SELECT number FROM signals ORDER BY number LIMIT 3")
    assert table.column("number").to_pylist() == [1, 2, 3]


def test_an_empty_answer_still_has_columns(reader: Any) -> None:
    """A query that finds nothing tells the names of its columns."""
    assert reader.query("SELECT number, path FROM signals WHERE 0").result_rows == []
    assert reader.query("SELECT number, path FROM signals LIMIT 0").column_names == ("number", "path")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO signals (number) VALUES (1)",
        "DROP TABLE signals",
        "SELECT file('/etc/hostname')",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT 1 INTO OUTFILE '/tmp/fleetgate-must-not-exist'",
    ],
)
def test_a_reader_changes_nothing_and_reaches_no_file(reader: Any, sql: str) -> None:
    """Whatever writes, lifts limits or leaves the database is refused."""
    with pytest.raises(DatabaseError, match=r"ACCESS_DENIED|READONLY"):
        reader.command(sql)


def test_a_reader_cannot_send_itself_more_rights(owner: Owner) -> None:
    """readonly=0 as a setting of the request is ignored, and the write refused."""
    status, _, _ = by_hand(
        owner, "POST", f"/?readonly=0&database={DATABASE}", b"INSERT INTO signals (number) VALUES (1)",
        X_ClickHouse_Key=READER,
    )  # fmt: skip
    assert status == 403


@pytest.mark.parametrize("token", ["", "guess", READER + "x", READER[:-1]])
def test_a_wrong_token_is_refused(owner: Owner, token: str) -> None:
    """Nothing but the exact token opens the door, and the error is ClickHouse's."""
    status, body, code = by_hand(owner, "GET", "/?query=SELECT%201", X_ClickHouse_Key=token)
    assert (status, code) == (403, "516")
    assert token == "" or token.encode() not in body


def test_a_token_in_the_url_opens_nothing(owner: Owner) -> None:
    """URLs end up in logs, so a password parameter is not looked at."""
    status, _, _ = by_hand(owner, "GET", f"/?query=SELECT%201&password={READER.replace(' ', '%20')}")
    assert status == 403


def test_a_ping_needs_no_token(owner: Owner) -> None:
    """Clients and probes ask /ping before they know anything."""
    assert by_hand(owner, "GET", "/ping")[:2] == (200, b"Ok.\n")


def test_clickhouse_speaks_for_itself(reader: Any) -> None:
    """Errors of the engine arrive with its number and words."""
    with pytest.raises(DatabaseError, match=r"Code: 47.*nonsense"):
        reader.command("SELECT nonsense")


def test_a_writer_inserts_in_any_format(writer: Any) -> None:
    """Native and Arrow inserts, and VALUES, arrive; tokens are honoured through HTTP."""
    writer.command("TRUNCATE TABLE notes")
    writer.insert("notes", [[1, "native"]], column_names=["a", "b"])
    writer.insert_arrow("notes", pa.table({"a": pa.array([2], pa.uint32()), "b": ["arrow"]}))
    writer.command("INSERT INTO notes VALUES (3, 'values')")
    rows = writer.query("SELECT a, b FROM notes ORDER BY a").result_rows
    assert rows == [(1, "native"), (2, "arrow"), (3, "values")]


def test_a_refused_insert_says_so(writer: Any) -> None:
    """Rows that violate a constraint are an error at the client, not a silent nothing."""
    writer.command(
        "CREATE OR REPLACE TABLE strict (a UInt8, CONSTRAINT small CHECK a < 10) ENGINE = MergeTree ORDER BY a"
    )
    with pytest.raises(DatabaseError, match=r"VIOLATED_CONSTRAINT"):
        writer.insert("strict", [[11]], column_names=["a"])


def test_settings_of_one_request_do_not_reach_the_next(owner: Owner) -> None:
    """Each statement runs with settings of its own."""
    limited = by_hand(owner, "POST", "/?max_result_rows=1", b"SELECT number FROM numbers(9)", X_ClickHouse_Key=READER)
    free = by_hand(owner, "POST", "/", b"SELECT count() FROM numbers(9)", X_ClickHouse_Key=READER)
    assert (limited[2], free[:2]) == ("396", (200, b"9\n"))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Length": str(MAX_REQUEST_BYTES + 1)}, 413),
        ({"Content_Length": "many"}, 411),
        ({"Content_Encoding": "br"}, 415),
        ({"Content_Encoding": "gzip"}, 400),
    ],
)
def test_bodies_are_bounded_and_understood(owner: Owner, headers: dict[str, str], status: int) -> None:
    """A body that is too long, without length, or in an encoding that is not what it says, is refused."""
    assert by_hand(owner, "POST", "/", b"SELECT 1", X_ClickHouse_Key=READER, **headers)[0] == status


@pytest.mark.parametrize("length", ["-1", "+8", "0x8", "", "1_0", "8 8"])
def test_a_chunk_has_a_plain_length(owner: Owner, length: str) -> None:
    """Hex digits: with a sign it would be read without end."""
    with closing(http.client.HTTPConnection(owner.url.removeprefix("http://"), timeout=5)) as connection:
        connection.putrequest("POST", "/")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.putheader("X-ClickHouse-Key", READER)
        connection.endheaders()
        connection.send(f"{length}\r\nSELECT 1\r\n0\r\n\r\n".encode())
        assert connection.getresponse().status == 400


def test_chunks_of_a_body_are_put_together(owner: Owner) -> None:
    """With an extension behind a length, as clients may send it."""
    status, body, _ = by_hand(
        owner, "POST", "/", b"7;x=y\r\nSELECT \r\n1\r\n7\r\n0\r\n\r\n", X_ClickHouse_Key=READER,
        Transfer_Encoding="chunked",
    )  # fmt: skip
    assert (status, body) == (200, b"7\n")


def test_a_small_body_cannot_unfold_into_a_large_one(owner: Owner) -> None:
    """Decompression stops at the limit."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    chunk = b" " * (1 << 20)
    bomb = b"".join(packer.compress(chunk) for _ in range(MAX_REQUEST_BYTES // len(chunk) + 1)) + packer.flush()
    assert by_hand(owner, "POST", "/", bomb, X_ClickHouse_Key=READER, Content_Encoding="gzip")[0] == 413


def test_many_readers_at_once(owner: Owner) -> None:
    """One client serves several threads, each with the right answer."""
    client = connect(owner, READER)
    answers: list[int] = []

    def ask(number: int) -> None:
        answers.extend(client.query(f"SELECT {number} FROM numbers(1)").result_rows[0][0] for _ in range(10))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert sorted(answers) == sorted(list(range(6)) * 10)


@pytest.mark.parametrize(("listen", "token"), [("0.0.0.0:0", "t"), ("example.org:0", "t"), ("127.0.0.1:0", "")])
def test_the_owner_never_listens_openly(engine: EmbeddedClickHouse, listen: str, token: str) -> None:
    """An address that is not loopback, or an empty token, ends the start with the setting's name."""
    with pytest.raises(ConfigError, match=r"loopback|token"):
        Owner(engine, listen, token)
