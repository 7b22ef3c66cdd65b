"""Where revocation lists come from: servers that do not do what they should, copies, and a bundle that changes."""

from __future__ import annotations

import socket
import struct
import time
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from tests.authorities import CA, now_ms

from fleetgate.accept import fetching
from fleetgate.accept.lists import Lists, Source
from fleetgate.clock import SystemClock
from fleetgate.config import Config, Crl
from fleetgate.control.revocation import MAX_LIST_BYTES, ListError
from fleetgate.errors import ConfigError

ROOT, OTHER = CA.root(), CA.root("other")
BUNDLE = [ROOT.certificate]


class Handler(BaseHTTPRequestHandler):
    """Answers by the path."""

    def do_GET(self) -> None:
        match self.path.replace("_", " "):
            case "/good":
                self._answer(200, ROOT.crl())
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            case "/large":
                self._answer(200, bytes(MAX_LIST_BYTES + 10))
            case "/in chunks":
                self._chunks(*(b"%x\r\n%s\r\n" % (len(part), part) for part in (ROOT.crl(), b"")))
            case "/chunks without end":
                self._chunks(*[b"100000\r\n" + bytes(0x100000) + b"\r\n"] * 64)
            case "/a chunk of less than nothing":
                self._chunks(b"-1\r\n", *[bytes(0x100000)] * 64)
            case "/garbage":
                self.wfile.write(b"\x00\x01 no HTTP at all\r\n\r\n")
            case "/silent":
                time.sleep(1)
            case "/slow":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                for _ in range(20):
                    self.wfile.write(b"x")
                    time.sleep(0.1)
            case _:
                self._answer(404, b"")

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _chunks(self, *chunks: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for chunk in chunks:
            self.wfile.write(chunk)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in http.server
        """Silent."""


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what these tests are about."""


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = Server(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def source(**entry: str) -> Source:
    return Source(Crl(**entry), Config(), None)  # type: ignore[arg-type]  # strings only


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/absent", "the server says 404"),
        ("/moved", "the server says 302; redirections are not followed"),
        ("/large", "larger than"),
        ("/chunks_without_end", "larger than"),
        ("/a_chunk_of_less_than_nothing", "cannot be fetched"),
        ("/garbage", "cannot be fetched"),
        ("/silent", "cannot be fetched"),
        ("/slow", "cannot be fetched"),
    ],
)
def test_a_server_that_gives_no_list(web: str, path: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is left in bounded time and memory, with a sentence."""
    monkeypatch.setattr(fetching, "SILENT_SECONDS", 0.3)
    if path == "/slow":
        monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.6)
    begun_s = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(ListError, match=says):
            source(url=web + path).look(BUNDLE, now_ms())
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_LIST_BYTES
    finally:
        tracemalloc.stop()
    assert time.monotonic() - begun_s < 30


def test_a_list_may_come_in_chunks(web: str) -> None:
    """As a server sends it that does not know its length."""
    assert source(url=f"{web}/in_chunks").look(BUNDLE, now_ms()) is not None


# Python's own: an SSLSocket whose connection is reset while it is made is left for the garbage collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_a_server_that_resets_each_connection() -> None:
    """Before the handshake, which then does not even begin: a sentence, at the start, at a look and in config check."""
    reset = struct.pack("ii", 1, 0)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                connection.close()

        Thread(target=serve, daemon=True).start()
        asked = source(url=f"https://127.0.0.1:{server.getsockname()[1]}/crl")
        with pytest.raises(ConfigError, match="cannot be fetched"):
            asked.begin(BUNDLE, now_ms())
        with pytest.raises(ListError, match="cannot be fetched"):
            asked.look(BUNDLE, now_ms())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/crl", "https://127.0.0.1:1/crl", "http://127.0.0.1:99999/crl"])
def test_nobody_listens_there(url: str) -> None:
    """The same."""
    with pytest.raises(ListError, match="cannot be fetched"):
        source(url=url).look(BUNDLE, now_ms())


def test_a_url_is_asked_again_before_its_list_ends(web: str) -> None:
    """After `refresh_seconds`, or before nextUpdate if that is sooner; sooner again where it failed."""
    asked = source(url=f"{web}/good")
    asked.in_force = asked.look(BUNDLE, now_ms())
    assert asked.in_force is not None
    ends_ms = asked.in_force.next_update_ms
    assert asked.wait_s(now_ms(), failed=False) == 3600
    assert asked.wait_s(now_ms(), failed=True) == 60
    assert asked.wait_s(ends_ms - 100_000, failed=False) == 90
    assert asked.wait_s(ends_ms + 1, failed=False) == 60


def configured(directory: Path, *files: str) -> Config:
    return msgspec.structs.replace(
        Config(), home=str(directory), crls=tuple(Crl(file=str(directory / name)) for name in files)
    )


def test_without_a_good_list_there_is_no_start(tmp_path: Path) -> None:
    """Nobody could say which devices it is about."""
    (tmp_path / "a.crl").write_bytes(OTHER.crl())
    for name, says in (("a.crl", "not in the trust bundle"), ("absent.crl", "cannot be read")):
        with pytest.raises(ConfigError, match=says):
            Lists(configured(tmp_path, name), BUNDLE, tmp_path / "crls", SystemClock())


def test_a_copy_stands_in_for_its_source(tmp_path: Path) -> None:
    """After the file is gone, damaged, or older than what was in force before the start; a damaged copy does not."""
    config, file, copies = configured(tmp_path, "a.crl"), tmp_path / "a.crl", tmp_path / "crls"
    older = ROOT.crl()
    file.write_bytes(ROOT.crl(ROOT.certificate))
    assert Lists(config, BUNDLE, copies, SystemClock()).refused == 0
    for content in (older, b"garbage", None):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        again = Lists(config, BUNDLE, copies, SystemClock())
        assert again.refused == 1
        assert [len(one.serials) for one in again.in_force.lists] == [1]
    [copy] = copies.iterdir()
    copy.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="cannot be read"):
        Lists(config, BUNDLE, copies, SystemClock())


def test_a_list_goes_with_its_issuer_and_comes_back_with_it(tmp_path: Path) -> None:
    """A CA left the bundle: no chain under it is trusted, its list is told and out of force; then it returns."""
    (tmp_path / "a.crl").write_bytes(ROOT.crl())
    config = configured(tmp_path, "a.crl")
    watched = Lists(config, BUNDLE, tmp_path / "crls", SystemClock())
    found = []
    for bundle in ([OTHER.certificate], BUNDLE):
        watched.replace(config, bundle, watched.prepare(config, bundle))
        found.append((len(watched.in_force.lists), watched.refused))
    assert found == [(0, 1), (1, 0)]
