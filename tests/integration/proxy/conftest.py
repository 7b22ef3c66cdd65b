"""One edge for all tests of this folder, and the proxy's own certificate, made as the page says."""

from __future__ import annotations

import itertools
import ssl
import subprocess
from collections.abc import Iterator

import pytest
from tests.gate import Car, Gate, Installation, running
from tests.integration.proxy.page import PROXY_NAME, commands
from tests.integration.proxy.stage import BOTH, ENDS, PASSES, ProxyAuthority, context_of
from tests.proxy_peer import HttpsHop

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> ProxyAuthority:
    directory = tmp_path_factory.mktemp("proxies")
    subprocess.run(["bash", "-ec", commands("openssl req")], cwd=directory, check=True, capture_output=True, timeout=30)
    return ProxyAuthority(directory)


@pytest.fixture(scope="session")
def edge(authority: Installation, proxies: ProxyAuthority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    home = authority.copy(tmp_path_factory.mktemp("home"))
    (home.directory / "pki" / "proxies.pem").write_bytes(proxies.pinned[0].read_bytes() + proxies.pem)
    proxy = {
        "protocol_v2_from": [PASSES, BOTH],
        "client_cert_from": [ENDS, BOTH],
        "client_cert_proxy_names": [PROXY_NAME],
    }
    with running(home, tmp_path_factory.mktemp("gate"), edge={"handshake_seconds": 2}, proxy=proxy) as gate:
        yield gate
        assert gate.process.poll() is None, "one of the tests ended the shared edge"


@pytest.fixture
def car(edge: Gate) -> Car:
    """A car that no other test has."""
    return edge.home.enrol(f"car-{next(_numbers)}")


@pytest.fixture
def other_car(edge: Gate) -> Car:
    return edge.home.enrol(f"car-{next(_numbers)}")


@pytest.fixture
def proxy_context(edge: Gate, proxies: ProxyAuthority) -> ssl.SSLContext:
    """TLS as the listed proxy."""
    return context_of(edge, proxies.pinned)


@pytest.fixture
def hop(edge: Gate, proxy_context: ssl.SSLContext) -> Iterator[HttpsHop]:
    """A connection of the proxy that ends TLS."""
    with HttpsHop(edge, proxy_context, ENDS) as connection:
        yield connection
