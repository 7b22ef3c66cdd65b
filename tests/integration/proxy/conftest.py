"""One edge for all tests of this folder. Loopback has many addresses: each stands for a machine.

`PASSES` is a proxy that passes TLS through and sends PROXY headers, `DIRECT` is nobody's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from tests.gate import Car, Gate, Installation, running

DIRECT, PASSES = "127.0.0.1", "127.0.0.2"

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def edge(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    proxy = {"protocol_v2_from": [PASSES]}
    with running(authority, tmp_path_factory.mktemp("gate"), edge={"handshake_seconds": 2}, proxy=proxy) as gate:
        yield gate
        assert gate.process.poll() is None, "one of the tests ended the shared edge"


@pytest.fixture
def car(edge: Gate) -> Car:
    """A car that no other test has."""
    return edge.home.enrol(f"car-{next(_numbers)}")


@pytest.fixture
def other_car(edge: Gate) -> Car:
    return edge.home.enrol(f"car-{next(_numbers)}")
