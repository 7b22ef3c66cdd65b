"""One TLS context for many devices: each presents its own certificate, whoever connects in between."""

from __future__ import annotations

import contextlib
import dataclasses
import ssl
from pathlib import Path

import pytest
from tests.unit.fleetsim.gate_double import make_pki

from fleetsim.bundle import Bundle, BundleError, read_bundle
from fleetsim.swarm_tls import SharedTls


def shown(client: ssl.SSLObject, server: ssl.SSLObject, pipes: tuple[ssl.MemoryBIO, ...]) -> bytes | None:
    """The certificate that the server saw, in DER, after a handshake in memory."""
    client_in, client_out, server_in, server_out = pipes
    for _ in range(4):
        for side in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            server_in.write(client_out.read())
            client_in.write(server_out.read())
    return server.getpeercert(binary_form=True)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    """Two devices under the same CA, the second with the gate's certificate as its own."""
    directory = tmp_path_factory.mktemp("pki") / "made"
    make_pki(directory)
    other = directory / "other"
    other.mkdir()
    for name in ("ca.pem", "device.json"):
        (other / name).write_bytes((directory / "device" / name).read_bytes())
    (other / "certificate.pem").write_bytes((directory / "gate.pem").read_bytes())
    (other / "private.pem").write_bytes((directory / "gate.key").read_bytes())
    return [read_bundle(directory / "device"), read_bundle(other)]


def test_each_connection_presents_the_certificate_of_its_device(bundles: list[Bundle]) -> None:
    """Both are begun before either handshake: the context holds the second one's key by then."""
    directory = bundles[0].directory.parent
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "gate.pem", directory / "gate.key")
    context.load_verify_locations(directory / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    tls = SharedTls("localhost")
    begun = []
    for bundle in bundles:
        pipes = tuple(ssl.MemoryBIO() for _ in range(4))
        client = tls.of(bundle).wrap_bio(pipes[0], pipes[1])
        begun.append((client, context.wrap_bio(pipes[2], pipes[3], server_side=True), pipes))
    seen = [shown(*each) for each in begun]
    own = [ssl.PEM_cert_to_DER_cert((bundle.directory / "certificate.pem").read_text()) for bundle in bundles]
    assert seen == own
    assert own[0] != own[1]
    assert len({id(client.context) for client, _, _ in begun}) == 1


def test_a_device_whose_files_are_gone_is_told_when_it_connects(bundles: list[Bundle], tmp_path: Path) -> None:
    """And one without a CA before."""
    lost = dataclasses.replace(bundles[0], directory=tmp_path)
    with pytest.raises(BundleError, match=r"ca\.pem cannot be used"):
        SharedTls("localhost").of(lost)
    (tmp_path / "ca.pem").write_bytes((bundles[0].directory / "ca.pem").read_bytes())
    tls = SharedTls("localhost").of(lost)
    with pytest.raises(BundleError, match="certificate files cannot be used"):
        tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())
