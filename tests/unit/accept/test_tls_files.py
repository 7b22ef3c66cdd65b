"""The files behind TLS: what the edge, a reload and `fleetgate config check` refuse in them."""

from __future__ import annotations

import ssl

import pytest
from tests.authorities import CA, der, on_an_odd_curve

from fleetgate.accept.tls import server_context, trust_bundle
from fleetgate.cli.config import CHECKS
from fleetgate.config import Config
from fleetgate.errors import ConfigError


def test_a_ca_with_a_key_of_an_unknown_kind_is_kept_out_of_the_bundle(config: Config) -> None:
    """OpenSSL would take it, and each question of whom it may speak for would have no answer."""
    odd = ssl.DER_cert_to_PEM_cert(on_an_odd_curve(der(CA.root("odd root").certificate)))
    bundle = config.path(config.edge.trust_bundle)
    assert [one.subject.rfc4514_string() for one in trust_bundle(config)] == ["CN=root"]
    CHECKS["edge.trust_bundle"](config)
    bundle.write_bytes(bundle.read_bytes() + odd.encode())
    for ask in (trust_bundle, CHECKS["edge.trust_bundle"]):
        with pytest.raises(ConfigError, match="CN=odd root has a key of a kind that is not known"):
            ask(config)


def test_a_private_key_that_others_may_read_is_refused_by_the_edge_too(config: Config) -> None:
    """As the setting's text promises: not by `fleetgate config check` alone."""
    bundle = trust_bundle(config)
    server_context(config, bundle, ["mqtt"])
    config.path(config.edge.private_key).chmod(0o640)
    for ask in (lambda: server_context(config, bundle, ["mqtt"]), lambda: CHECKS["edge.certificate"](config)):
        with pytest.raises(ConfigError, match="open to other users"):
            ask()
