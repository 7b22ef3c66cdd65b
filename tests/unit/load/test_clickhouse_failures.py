"""What a failure of ClickHouse means: wait and try again, or set the segment aside."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from fleetgate.errors import ClickHouseAway, ConfigError
from fleetgate.load import embedded
from fleetgate.load.clickhouse import Answered, Refused, ServerClickHouse, decode_rows, failure
from fleetgate.load.embedded import EmbeddedClickHouse


@pytest.mark.parametrize("code", [6, 27, 117, 469])
def test_only_the_rows_fault_refuses_a_segment(code: int) -> None:
    """Errors that speak of the rows themselves are final, with ClickHouse's number."""
    error = failure(f"Received exception\nCode: {code}. DB::Exception: no. (NAME)\nstack")
    assert isinstance(error, Refused)
    assert error.code == code


@pytest.mark.parametrize("code", [60, 81, 164, 202, 241, 243, 252, 497, 516])
def test_everything_else_waits(code: int) -> None:
    """A missing table, a full disk, a wrong password would refuse all segments alike: none is set aside for it."""
    assert isinstance(failure(f"Code: {code}. DB::Exception: not now. (NAME)"), Answered)


def test_an_error_text_is_one_line() -> None:
    """What a person or a log sees has no stack trace in it."""
    assert "\n" not in str(failure("Code: 60. DB::Exception: no such table.\n0. somewhere\n1. else"))


def test_a_server_that_is_not_there_is_away() -> None:
    """A refused connection is ClickHouseAway, whatever the client library calls it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        with pytest.raises(ClickHouseAway):
            ServerClickHouse(f"http://127.0.0.1:{taken.getsockname()[1]}", "x", "default", "").command("SELECT 1")


def test_a_server_that_hangs_up_is_away() -> None:
    """An answer that breaks off in its middle is ClickHouseAway."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with suppress(OSError):  # the test may end before somebody comes once more
                for _ in range(4):
                    connection, _ = listener.accept()
                    connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                    connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(ClickHouseAway):
            ServerClickHouse(f"http://127.0.0.1:{listener.getsockname()[1]}", "x", "default", "").command("SELECT 1")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied", "status"), NotADirectoryError(20, "No")])
def test_a_directory_that_load_cannot_use_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """Its files are another user's, after a start as root: the setting is named, and what to do."""

    def refused(*_: object) -> int:
        raise error

    monkeypatch.setattr(embedded, "hold", refused)
    with pytest.raises(ConfigError, match=r"clickhouse\.url: .* must belong to the user"):
        EmbeddedClickHouse(tmp_path, "x")


def test_text_that_is_not_utf8_is_other_text_and_no_error() -> None:
    """A String of ClickHouse holds any bytes; a row with such ones is read like the others, and equals nothing."""
    assert decode_rows(b'["\xff",1]\n["aa",2]\n') == [["\ufffd", 1], ["aa", 2]]
    assert decode_rows('["\u00e4"]\n'.encode()) == [["\u00e4"]]


@pytest.mark.parametrize("url", ["ftp://host:1", "http://", "localhost:8123"])
def test_a_url_of_another_kind_is_named(url: str) -> None:
    """A setting that is no ClickHouse URL is refused with its name."""
    with pytest.raises(ConfigError, match=r"clickhouse\.url"):
        ServerClickHouse(url, "x", "default", "")
