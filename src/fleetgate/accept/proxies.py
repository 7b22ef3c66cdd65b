"""Which TCP peers are proxies, and what of theirs is believed (`[proxy]` of the configuration; nobody by default).

Decides by the address of the TCP connection itself, never by one that a header names; and, for a proxy that ends TLS,
by the certificate it shows of its own, which its own trust file vouches for and which bears one of the listed names.
What such proxies say is read by `proxyprotocol` and `clientcert`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from cryptography import x509

from fleetgate.config import Proxy as ProxySettings
from fleetgate.control.profile import ProfileError
from fleetgate.errors import ConfigError


class Proxies:
    """Raises ConfigError, naming the setting, where an address is none or a proxy could be anybody."""

    def __init__(self, settings: ProxySettings) -> None:
        self._senders = _networks("proxy.protocol_v2_from", settings.protocol_v2_from)
        self._terminators = _networks("proxy.client_cert_from", settings.client_cert_from)
        self._names = frozenset(settings.client_cert_proxy_names)
        if self._terminators and not self._names:
            raise ConfigError(
                "proxy.client_cert_from lists proxies, and proxy.client_cert_proxy_names none of their names: name "
                "the DNS name in each proxy's own certificate"
            )

    def sends_header(self, host: str) -> bool:
        """Whether connections from this TCP peer begin with a PROXY protocol header, on both listeners."""
        return bool(self._senders) and _within(host, self._senders)

    def ends_tls(self, host: str) -> bool:
        """Whether this TCP peer is a proxy that ends the vehicles' TLS, on the HTTPS listener."""
        return bool(self._terminators) and _within(host, self._terminators)

    def expiry_ms(self, certificate: bytes) -> int:
        """When the certificate (DER) of a proxy that ends TLS expires; its chain was verified in the handshake.

        Raises ProfileError when it bears no listed name. A device's never does: a URI is the only name it may have.
        """
        try:
            leaf = x509.load_der_x509_certificate(certificate)
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            dns_names = names.get_values_for_type(x509.DNSName)
        except Exception:  # the parser's set of errors is open, as in `control.profile`
            raise ProfileError("the proxy's certificate has no DNS name that can be read") from None
        if self._names.isdisjoint(dns_names):
            raise ProfileError("the proxy's certificate bears none of proxy.client_cert_proxy_names")
        return int(leaf.not_valid_after_utc.timestamp()) * 1000


_Networks = tuple[IPv4Network | IPv6Network, ...]


def _networks(setting: str, listed: tuple[str, ...]) -> _Networks:
    try:
        return tuple(ip_network(entry) for entry in listed)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}; write 10.0.0.7 or 10.0.0.0/24") from None


def _within(host: str, networks: _Networks) -> bool:
    address = ip_address(host)
    # A listener on [::] sees IPv4 clients under addresses of its own family.
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks)
