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
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.config import Config
from fleetgate.control.profile import authority_of
from fleetgate.control.secretfile import read_secret
from fleetgate.errors import ConfigError

_CA_INIT: Final = "`fleetgate ca init` makes one"
_SEE_PAGE: Final = "docs/how-to/run-behind-a-proxy.md says what belongs there"


def server_context(config: Config, bundle: list[x509.Certificate], protocols: list[str]) -> ssl.SSLContext:
    """A context for clients whom `bundle` vouches for; `protocols` are the ALPN names offered. Raises ConfigError
    naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if config.edge.tls_1_2 else ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # Each CA of the bundle may vouch, also one whose root is not in it (as for `control.chain`).
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    certificate, key = config.path(config.edge.certificate), config.path(config.edge.private_key)
    _readable(certificate, "edge.certificate", _CA_INIT)
    read_secret(key)  # OpenSSL reads it, whoever else may
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
    """The CA certificates that may vouch for devices, each with a key that can be told from others: issuers and lists
    are about keys. Raises ConfigError naming the file."""
    path = config.path(config.edge.trust_bundle)
    bundle = _certificates(path, "edge.trust_bundle", _CA_INIT)
    for ca in bundle:
        try:
            authority_of(ca)
        except (UnsupportedAlgorithm, ValueError):
            name = ca.subject.rfc4514_string()
            why = "has a key of a kind that is not known here, such as one on an uncommon curve"
            raise ConfigError(f"edge.trust_bundle {path}: {name} {why}; take it out") from None
    return bundle


class ProxyTls(NamedTuple):
    """For proxies that end the vehicles' TLS: a context that takes their own certificates only, and what vouches for
    them. Without a context there are no such proxies."""

    context: ssl.SSLContext | None
    trusted: frozenset[x509.Certificate]

    @classmethod
    def load(cls, config: Config) -> ProxyTls:
        """Raises ConfigError naming the file."""
        if not config.proxy.client_cert_from:
            return cls(None, frozenset())
        path = config.path(config.proxy.client_cert_proxy_trust)
        trusted = _certificates(path, "proxy.client_cert_proxy_trust", _SEE_PAGE)
        return cls(server_context(config, trusted, ["http/1.1"]), frozenset(trusted))


def _certificates(path: Path, setting: str, remedy: str) -> list[x509.Certificate]:
    _readable(path, setting, remedy)
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (ValueError, x509.InvalidVersion, OSError) as error:
        raise ConfigError(f"{setting} {path} holds no usable CA certificate: {error}") from None


def _readable(path: Path, setting: str, remedy: str) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path} ({error.strerror}); {remedy}") from None


def resumed(connection: ssl.SSLSocket | ssl.SSLObject) -> bool:
    """Whether the handshake was an abbreviated one, which checked no certificate."""
    return bool(connection.session_reused)
