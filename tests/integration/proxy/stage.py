"""Who is on the stage behind a proxy: loopback has many addresses, and each stands for a machine.

`PASSES` passes TLS through and sends PROXY headers, `ENDS` ends TLS and sends Client-Cert, `BOTH` ends TLS and sends
both, `DIRECT` is where vehicles are.
"""

from __future__ import annotations

import itertools
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from tests.gate import Car, Gate

from fleetgate.control.pki import private_pem

DIRECT, PASSES, ENDS, BOTH = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"

_numbers = itertools.count(1)


class ProxyAuthority:
    """A CA that issues for proxies only, beside the pinned certificate that the page makes in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = generate_private_key(SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "proxies")])
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        usage = x509.KeyUsage(False, False, False, False, False, True, False, False, False)
        builder = self._builder(self._name, self._key.public_key(), timedelta(days=1))
        self.certificate = builder.add_extension(constraints, True).add_extension(usage, True).sign(self._key, SHA256())

    def _builder(self, subject: x509.Name, key: EllipticCurvePublicKey, valid: timedelta) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number(), now, now + valid)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        )

    def issue(self, name: str, valid: timedelta = timedelta(days=1)) -> tuple[Path, Path]:
        """(certificate, key) files of a proxy of that DNS name."""
        key = generate_private_key(SECP256R1())
        builder = self._builder(x509.Name([]), key.public_key(), valid)
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        leaf = builder.add_extension(names, True).sign(self._key, SHA256())
        number = next(_numbers)
        certificate, private = self.directory / f"{number}.pem", self.directory / f"{number}.key"
        certificate.write_bytes(leaf.public_bytes(Encoding.PEM))
        private.write_bytes(private_pem(key))
        return certificate, private

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def pinned(self) -> tuple[Path, Path]:
        """(certificate, key) as the page makes them."""
        return self.directory / "proxy.pem", self.directory / "proxy.key"


def certificate_of(car: Car) -> bytes:
    """The leaf, DER."""
    return x509.load_pem_x509_certificates((car.directory / "certificate.pem").read_bytes())[0].public_bytes(
        Encoding.DER
    )


def context_of(edge: Gate, files: tuple[Path, Path]) -> ssl.SSLContext:
    """TLS with this certificate and key, towards the edge."""
    context = ssl.create_default_context(cafile=edge.home.directory / "pki" / "root.pem")
    context.load_cert_chain(*files)
    return context


def addresses(gate: Gate, car: Car) -> set[str]:
    """The peer addresses of the device's messages in the spool."""
    return {
        peer.address
        for segment in gate.segments()
        for peer in segment.peers.values()
        if peer.device_id == car.device_id
    }
