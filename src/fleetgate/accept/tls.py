"""The TLS of both listeners: mutual, 1.3 (1.2 only by a setting), no tickets, no early data.

Decides which chains are trusted. What the leaf may look like is `control.profile`, whom it names is the registry's.
A resumed session would skip the certificate checks, so none is offered; a 1.2 client that resumes by session id is
noticed by `resumed`.
"""

from __future__ import annotations

import _ssl
import ssl
import sys
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.config import Config
from fleetgate.errors import ConfigError


def server_context(config: Config, bundle: list[x509.Certificate], protocols: list[str]) -> ssl.SSLContext:
    """A context for vehicles, for whom `bundle` vouches; `protocols` are the ALPN names offered. Raises ConfigError
    naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if config.edge.tls_1_2 else ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Each CA of the bundle may vouch, also one whose root is not in it (as for `control.chain`).
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    certificate, key = config.path(config.edge.certificate), config.path(config.edge.private_key)
    _readable(certificate, "edge.certificate")
    _readable(key, "edge.private_key")
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"edge.certificate and edge.private_key do not fit together: {error}") from None
    context.load_verify_locations(cadata=b"".join(one.public_bytes(Encoding.DER) for one in bundle))
    context.set_alpn_protocols(protocols)
    return context


def verified_chain(connection: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """The chain that the handshake verified, leaf first, DER: what the peer sent beside it is not in it."""
    if sys.version_info >= (3, 13):
        return connection.get_verified_chain()
    chain = connection._sslobj.get_verified_chain()  # type: ignore[union-attr]  # what 3.13 made public
    return [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain or ()]


def trust_bundle(config: Config) -> list[x509.Certificate]:
    """The CA certificates that may vouch for devices. Raises ConfigError naming the file."""
    path = config.path(config.edge.trust_bundle)
    _readable(path, "edge.trust_bundle")
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (ValueError, x509.InvalidVersion, OSError) as error:
        raise ConfigError(f"edge.trust_bundle {path} holds no usable CA certificate: {error}") from None


def _readable(path: Path, setting: str) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path} ({error.strerror}); `fleetgate ca init` makes one") from None


def resumed(connection: ssl.SSLSocket | ssl.SSLObject) -> bool:
    """Whether the handshake was an abbreviated one, which checked no certificate."""
    return bool(connection.session_reused)
