"""Where revocation lists come from: servers that do not do what they should, copies, and a bundle that changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import msgspec
import pytest
from tests.authorities import CA, now_ms

from fleetgate.accept import lists
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
        match self.path:
            case "/good":
                self._answer(200, ROOT.crl())
            case "/moved":
                self.send_response(302)
                self.send_header("Location", "file:///etc/passwd")
                self.end_headers()
            case "/large":
                self._answer(200, bytes(MAX_LIST_BYTES + 10))
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
        ("/garbage", "cannot be fetched"),
        ("/silent", "cannot be fetched"),
        ("/slow", "cannot be fetched"),
    ],
)
def test_a_server_that_gives_no_list(web: str, path: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is left in bounded time and memory, with a sentence."""
    monkeypatch.setattr(lists, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(lists, "FETCH_SECONDS", 0.6)
    begun_s = time.monotonic()
    with pytest.raises(ListError, match=says):
        source(url=web + path).look(BUNDLE, now_ms())
    assert time.monotonic() - begun_s < 30


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
