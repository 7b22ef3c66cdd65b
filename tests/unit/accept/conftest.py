"""An edge without sockets on a spool of the test, and the files that an edge identifies itself and others with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.authorities import CA, pem
from tests.gates import Gate

from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.control.pki import Authority, private_pem


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    opened = Gate(tmp_path / "spool")
    yield opened
    opened.close()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A bundle of one root, and a server's certificate and key as `ca init` leaves them."""
    (tmp_path / "pki").mkdir()
    certificate, key = Authority.create(tmp_path / "own", "fleet.example", SystemClock()).issue_server(["localhost"])
    config = msgspec.structs.replace(Config(), home=str(tmp_path))
    config.path(config.edge.certificate).write_bytes(pem(certificate))
    config.path(config.edge.private_key).write_bytes(private_pem(key))
    config.path(config.edge.private_key).chmod(0o600)
    config.path(config.edge.trust_bundle).write_bytes(pem(CA.root().certificate))
    return config
