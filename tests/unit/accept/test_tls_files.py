"""The files behind TLS: what the edge, a reload and `fleetgate config check` refuse in them."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec
import pytest
from tests.authorities import CA, der, on_an_odd_curve, pem

from fleetgate.accept.tls import trust_bundle
from fleetgate.cli.config import CHECKS
from fleetgate.clock import SystemClock
from fleetgate.config import Config
from fleetgate.control.pki import Authority, private_pem
from fleetgate.errors import ConfigError

ROOT = CA.root()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """With a bundle, and a server's certificate and key as `ca init` leaves them."""
    (tmp_path / "pki").mkdir()
    certificate, key = Authority.create(tmp_path / "own", "fleet.example", SystemClock()).issue_server(["localhost"])
    config = msgspec.structs.replace(Config(), home=str(tmp_path))
    config.path(config.edge.certificate).write_bytes(pem(certificate))
    config.path(config.edge.private_key).write_bytes(private_pem(key))
    config.path(config.edge.private_key).chmod(0o600)
    config.path(config.edge.trust_bundle).write_bytes(pem(ROOT.certificate))
    return config


def test_a_ca_with_a_key_of_an_unknown_kind_is_kept_out_of_the_bundle(config: Config) -> None:
    """OpenSSL would take it, and each question of whom it may speak for would have no answer."""
    odd = ssl.DER_cert_to_PEM_cert(on_an_odd_curve(der(CA.root("odd root").certificate)))
    bundle = config.path(config.edge.trust_bundle)
    assert [one.subject for one in trust_bundle(config)] == [ROOT.certificate.subject]
    CHECKS["edge.trust_bundle"](config)
    bundle.write_bytes(bundle.read_bytes() + odd.encode())
    for ask in (trust_bundle, CHECKS["edge.trust_bundle"]):
        with pytest.raises(ConfigError, match="CN=odd root has a key of a kind that is not known"):
            ask(config)
