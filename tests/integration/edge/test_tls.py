"""Who gets through the handshake of the real listeners, and whom a certificate speaks for."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.gate import Car, Gate, Installation
from tests.http_peer import HttpPeer
from tests.mqtt_peer import Ended, MqttPeer

from fleetgate.control.pki import private_pem


def certificate_with(names: list[str], gate: Gate, directory: Path) -> tuple[Path, Path]:
    """A leaf that the gate's own authority signed, with these URI names; (certificate, key) files."""
    pki = gate.home.directory / "pki"
    issuer = x509.load_pem_x509_certificate((pki / "issuing.pem").read_bytes())
    issuer_key = load_pem_private_key((pki / "issuing.key").read_bytes(), None)
    key = generate_private_key(SECP256R1())
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names]), critical=True
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)  # type: ignore[arg-type]
        .sign(issuer_key, SHA256())  # type: ignore[arg-type]
    )
    certificate, private = directory / "leaf.pem", directory / "leaf.key"
    certificate.write_bytes(leaf.public_bytes(Encoding.PEM) + issuer.public_bytes(Encoding.PEM))
    private.write_bytes(private_pem(key))
    return certificate, private


@pytest.fixture
def two_names(shared_gate: Gate, car: Car, tmp_path: Path) -> ssl.SSLContext:
    """TLS with a good chain whose leaf names the car and one more."""
    names = [f"spiffe://fleet.example/tenant/{car.tenant}/device/{name}" for name in (car.device_id, "other")]
    return car.context(*certificate_with(names, shared_gate, tmp_path))


def without_certificate(car: Car) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=car.directory / "ca.pem")


def of_another_authority(car: Car, directory: Path) -> ssl.SSLContext:
    directory.mkdir()
    foreign = Installation.create(directory).enrol(car.vehicle_id)
    return car.context(foreign.directory / "certificate.pem", foreign.key_file)


def with_tls_1_2(car: Car) -> ssl.SSLContext:
    context = car.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.fixture(params=["no certificate", "another authority", "TLS 1.2"])
def refused_context(request: pytest.FixtureRequest, car: Car, tmp_path: Path) -> ssl.SSLContext:
    if request.param == "no certificate":
        return without_certificate(car)
    return (
        of_another_authority(car, tmp_path / "foreign") if request.param == "another authority" else with_tls_1_2(car)
    )


def test_mqtt_is_refused_in_the_handshake(shared_gate: Gate, car: Car, refused_context: ssl.SSLContext) -> None:
    """No CONNACK: a client that TLS refuses never reaches the protocol."""
    with pytest.raises((ssl.SSLError, ConnectionError, Ended)), MqttPeer(shared_gate, car, refused_context) as peer:
        peer.greet()


def test_https_is_refused_in_the_handshake(shared_gate: Gate, car: Car, refused_context: ssl.SSLContext) -> None:
    """No answer of any status."""
    with pytest.raises(httpx.TransportError), HttpPeer(shared_gate, car, refused_context) as peer:
        peer.ask(car.sign(1, 0))


def test_a_leaf_with_two_names_is_refused_by_mqtt(shared_gate: Gate, car: Car, two_names: ssl.SSLContext) -> None:
    """CONNACK 0x87 says what is wrong with the certificate."""
    with MqttPeer(shared_gate, car, two_names) as peer:
        refused = peer.greet()
        assert refused.reason_code == 0x87
        assert "exactly one subject alternative name" in (refused.reason_str or "")


def test_a_leaf_with_two_names_is_refused_by_https(shared_gate: Gate, car: Car, two_names: ssl.SSLContext) -> None:
    """403 says what is wrong with the certificate."""
    with HttpPeer(shared_gate, car, two_names) as peer:
        answer = peer.post(car.sign(1, 0))
        assert (answer.status, "exactly one subject alternative name" in answer.items["detail"]) == (403, True)


def test_no_session_can_be_resumed(shared_gate: Gate, car: Car) -> None:
    """A resumed session would skip the certificate's checks: no ticket is given, every handshake is a whole one."""
    context = car.context()
    with MqttPeer(shared_gate, car, context) as first:
        first.hello()
        offered = first.sock.session
    assert offered is None or not offered.has_ticket
    with MqttPeer(shared_gate, car, context) as second:
        second.hello()
        assert not second.sock.session_reused
