"""The TLS of both listeners: mutual, 1.3 (1.2 only by a setting), no tickets, no early data.

Decides which chains are trusted. What the leaf may look like is `control.profile`, whom it names is the registry's.
A resumed session would skip the certificate checks, so none is offered; a 1.2 client that resumes by session id is
noticed by `resumed`.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from fleetgate.config import Config
from fleetgate.errors import ConfigError


def server_context(config: Config, protocols: list[str]) -> ssl.SSLContext:
    """A context for vehicles; `protocols` are the ALPN names offered. Raises ConfigError naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if config.edge.tls_1_2 else ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    certificate, key = config.path(config.edge.certificate), config.path(config.edge.private_key)
    _readable(certificate, "edge.certificate")
    _readable(key, "edge.private_key")
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"edge.certificate and edge.private_key do not fit together: {error}") from None
    bundle = config.path(config.edge.trust_bundle)
    _readable(bundle, "edge.trust_bundle")
    try:
        context.load_verify_locations(bundle)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"edge.trust_bundle {bundle} holds no usable CA certificate: {error}") from None
    context.set_alpn_protocols(protocols)
    return context


def _readable(path: Path, setting: str) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path} ({error.strerror}); `fleetgate ca init` makes one") from None


def resumed(connection: ssl.SSLSocket | ssl.SSLObject) -> bool:
    """Whether the handshake was an abbreviated one, which checked no certificate."""
    return bool(connection.session_reused)
