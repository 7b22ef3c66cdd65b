"""A POST to somebody else's server: it goes where the name was checked to lead, and takes bounded time and memory."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.authorities import pem
from tests.papers import private_pem
from tests.receivers import OK, receiver, saying

from fleetgate.clock import SystemClock
from fleetgate.control.pki import Authority
from fleetgate.load import posting
from fleetgate.load.addresses import is_public
from fleetgate.load.posting import Poster, PostFailed

NOT_PUBLIC = """
0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.9.9.9 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1
192.88.99.1 192.168.1.1 198.18.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
64:ff9b:1::1 100::1 2001::1 2001:2::1 2001:10::1 2001:db8::1 2002:7f00:1::1 2002:808:808::1 3fff::1 5f00::1
fc00::1 fd12::1 fe80::1 fe80::1%lo fec0::1 ff02::1 ff0e::1 localhost 0x7f.1 2130706433
"""
PUBLIC = """
1.1.1.1 8.8.8.8 93.184.216.34 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 223.255.255.255
2606:4700:4700::1111 2a00:1450:4001:80b::200e 2001:4860:4860::8888 ::ffff:8.8.8.8 64:ff9b::808:808
"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    """Whatever it is written as, and whatever it is inside."""
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_a_public_address_is_let(address: str) -> None:
    """Those beside the refused ones too."""
    assert is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_no_spelling_of_loopback_gets_through(host: str) -> None:
    """With the system's own resolver; nothing is connected to."""
    with receiver(saying(OK)) as found:
        with pytest.raises(PostFailed, match="no public address"):
            Poster(found.url(host), allow_private=False).post(b"{}", {})
        assert found.connections == 0


def test_a_name_with_one_private_address_among_public_ones_is_refused() -> None:
    """Before anything is connected to."""
    poster = Poster("https://hooks.example/x", False, lambda host, port: ["93.184.216.34", "10.0.0.1"])
    with pytest.raises(PostFailed, match=r"leads to 10\.0\.0\.1"):
        poster.post(b"{}", {})


def test_a_name_that_means_another_address_a_moment_later_is_not_asked_again() -> None:
    """DNS rebinding: the address that was checked is the one that is connected to."""
    asked: list[tuple[str, int]] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.66"]

    with receiver(saying(OK)) as found:
        poster = Poster(found.url("hooks.example"), True, rebinding)
        assert poster.post(b"{}", {}) == 204
        assert asked == [("hooks.example", found.port)]
        assert found.requests[0][0]["host"] == f"hooks.example:{found.port}"


def test_each_attempt_is_checked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was good and then leads inside is refused; loopback stands for a public address here."""
    monkeypatch.setattr("fleetgate.load.addresses.is_public", lambda address: address == "127.0.0.1")
    leads_to = ["127.0.0.1"]
    with receiver(saying(OK)) as found:
        poster = Poster(found.url("hooks.example"), False, lambda host, port: leads_to)
        assert poster.post(b"{}", {}) == 204
        leads_to[:] = ["127.0.0.2"]
        with pytest.raises(PostFailed, match="no public address"):
            poster.post(b"{}", {})
        assert found.connections == 1


def test_a_redirect_is_followed_nowhere() -> None:
    """Not even where an inner server would answer."""
    with receiver(saying(OK)) as inner:
        there = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: {inner.url()}\r\nContent-Length: 0\r\n\r\n".encode()
        with receiver(saying(there)) as found:
            assert Poster(found.url(), True).post(b"{}", {}) == 307
        assert inner.connections == 0


def test_the_name_is_checked_by_tls(tmp_path: Path) -> None:
    """Though the connection goes to a number: a certificate of another name is refused."""
    authority = Authority.create(tmp_path, "fleet.example", SystemClock())
    certificate, key = authority.issue_server(["hooks.example"])
    (tmp_path / "server.pem").write_bytes(pem(certificate, authority.issuing))
    (tmp_path / "server.key").write_bytes(private_pem(key))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    trusting = ssl.create_default_context(cadata=pem(authority.root).decode())
    with receiver(saying(OK), served) as found:
        for host, tls, good in [
            ("hooks.example", trusting, True),
            ("other.example", trusting, False),
            ("hooks.example", None, False),  # the system's CAs
        ]:
            poster = Poster(found.url(host, "https"), True, lambda host, port: ["127.0.0.1"], tls)
            if good:
                assert poster.post(b"{}", {}) == 204
            else:
                with pytest.raises(PostFailed, match="certificate verify failed"):
                    poster.post(b"{}", {})
        assert len(found.requests) == 1


def _silent(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.recv(1)


def _dripping(connection: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def _endless(beginning: bytes, more: bytes) -> object:
    def answer(connection: socket.socket) -> None:
        connection.sendall(beginning)
        while True:
            connection.sendall(more)

    return answer


ENDLESS_HEAD = _endless(b"HTTP/1.1 200 OK\r\n", b"x: " + b"y" * 4000 + b"\r\n")
ENDLESS_BEFORE = _endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize(
    "answer", [_silent, _dripping, ENDLESS_BEFORE, ENDLESS_HEAD, saying(b"no HTTP\r\n\r\n"), saying(b"")]
)
def test_no_answer_holds_it_or_grows_memory(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails with a reason within its time."""
    monkeypatch.setattr(posting, "POST_SECONDS", 0.4)
    assert callable(answer)
    with receiver(answer) as found, pytest.raises(PostFailed):
        Poster(found.url(), True).post(b"{}", {})


def test_an_endless_body_is_not_read() -> None:
    """The head says it all."""
    answer = _endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nmore\r\n")
    assert callable(answer)
    with receiver(answer) as found:
        assert Poster(found.url(), True).post(b"{}", {}) == 200


def test_the_url_stands_in_no_error() -> None:
    """Its path may be the receiver's secret."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        with pytest.raises(PostFailed) as failed:
            Poster(f"http://127.0.0.1:{taken.getsockname()[1]}/hush?hush", True).post(b"{}", {})
    assert "hush" not in str(failed.value)
