"""Who is a proxy: by the TCP peer's address and by the certificate of its own, and nobody where nothing is listed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.accept.proxies import Proxies
from fleetgate.config import Proxy
from fleetgate.control.profile import ProfileError
from fleetgate.errors import ConfigError

NAME = "proxy.example.org"
END = datetime(2027, 1, 1, tzinfo=UTC)


def certificate(*names: x509.GeneralName) -> bytes:
    key = generate_private_key(SECP256R1())
    nobody = x509.Name([])
    builder = x509.CertificateBuilder(nobody, nobody, key.public_key(), 1, END - timedelta(days=90), END)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def proxies(*names: str) -> Proxies:
    return Proxies(Proxy(client_cert_from=("10.0.0.7",), client_cert_proxy_names=names or (NAME,)))


@pytest.mark.parametrize(("listed", "host", "expected"), [
    ((), "127.0.0.1", False),
    (("127.0.0.1",), "127.0.0.1", True),
    (("127.0.0.1",), "127.0.0.2", False),
    (("10.0.0.0/24", "192.0.2.1"), "10.0.0.255", True),
    (("10.0.0.0/24", "192.0.2.1"), "10.0.1.0", False),
    (("2001:db8::/32",), "2001:db8::7", True),
    (("2001:db8::/32",), "10.0.0.7", False),
    (("10.0.0.7",), "::ffff:10.0.0.7", True),
    (("fe80::/10",), "fe80::1%eth0", True),
])  # fmt: skip
def test_a_peer_is_a_proxy_where_its_address_is_listed(listed: tuple[str, ...], host: str, expected: bool) -> None:
    """Each list speaks for itself."""
    header = Proxies(Proxy(protocol_v2_from=listed))
    tls = Proxies(Proxy(client_cert_from=listed, client_cert_proxy_names=(NAME,)))
    assert (header.sends_header(host), header.ends_tls(host)) == (expected, False)
    assert (tls.sends_header(host), tls.ends_tls(host)) == (False, expected)


@pytest.mark.parametrize("entry", ["proxy.example.org", "10.0.0.7/24", "10.0.0", "", "*"])
@pytest.mark.parametrize("setting", ["protocol_v2_from", "client_cert_from"])
def test_what_is_no_address_is_refused_by_name(setting: str, entry: str) -> None:
    """Not at the first connection: at the start."""
    with pytest.raises(ConfigError, match=f"proxy.{setting}: .*write 10.0.0.7 or 10.0.0.0/24"):
        Proxies(Proxy(client_cert_proxy_names=(NAME,), **{setting: (entry,)}))  # type: ignore[arg-type]


def test_an_address_alone_makes_no_proxy() -> None:
    """Without names whoever the trust file vouches for could speak for vehicles."""
    with pytest.raises(ConfigError, match="none of their names"):
        Proxies(Proxy(client_cert_from=("10.0.0.7",)))


def test_a_proxys_certificate_bears_a_listed_name() -> None:
    """One of several; until when is told, for the connection ends then."""
    leaf = certificate(x509.DNSName("other.example.org"), x509.DNSName(NAME))
    assert proxies("a.example.org", NAME).expiry_ms(leaf) == int(END.timestamp()) * 1000


@pytest.mark.parametrize("names", [
    (),
    (x509.DNSName("other.example.org"),),
    (x509.DNSName(f"sub.{NAME}"),),
    (x509.DNSName(f"{NAME}\0.evil.example"),),
    (x509.RFC822Name(f"root@{NAME}"),),
    (x509.UniformResourceIdentifier(NAME),),
    (x509.UniformResourceIdentifier("spiffe://fleet.example/tenant/acme/device/car-7-tcu"),),
])  # fmt: skip
def test_any_other_certificate_is_no_proxys(names: tuple[x509.GeneralName, ...]) -> None:
    """A device's neither: what it may be called is a URI."""
    with pytest.raises(ProfileError):
        proxies().expiry_ms(certificate(*names))


def test_bytes_that_are_no_certificate_are_no_proxys() -> None:
    """Refused like any other."""
    with pytest.raises(ProfileError):
        proxies().expiry_ms(b"\x30\x00")
