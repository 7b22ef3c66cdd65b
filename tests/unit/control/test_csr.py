"""A certificate request stands for a device only where it proves its key and tells the device's own name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from fleetgate.control.csr import MAX_CSR_BYTES, CsrError, public_key_of

DOMAIN = "fleet.example"
URI = f"spiffe://{DOMAIN}/tenant/acme/device/car-tcu"
_POINT = PublicFormat.UncompressedPoint
KEY = ec.generate_private_key(ec.SECP256R1())

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def request(
    key: Key = KEY,
    names: tuple[str, ...] = (),
    alternative: tuple[x509.GeneralName, ...] = (),
    encoding: Encoding = Encoding.DER,
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key, digest).public_bytes(encoding)


def key_of(content: bytes) -> object:
    return public_key_of(content, "acme", "car-tcu", DOMAIN)


@pytest.mark.parametrize("encoding", [Encoding.PEM, Encoding.DER])
@pytest.mark.parametrize("key", [KEY, ed25519.Ed25519PrivateKey.generate()], ids=["P-256", "Ed25519"])
def test_a_request_gives_its_key(key: Key, encoding: Encoding) -> None:
    """In both encodings and for both kinds of key."""
    assert key_of(request(key, encoding=encoding)) == key.public_key()


@pytest.mark.parametrize(
    "content",
    [
        request(names=("car-tcu",)),
        request(alternative=(x509.UniformResourceIdentifier(URI),)),
        request(names=("car-tcu",), alternative=(x509.UniformResourceIdentifier(URI),)),
    ],
    ids=["subject", "alternative name", "both"],
)
def test_a_request_may_say_the_devices_own_name(content: bytes) -> None:
    """Same subject and alternative name as the certificate, as RFC 7030 wants it of a renewal."""
    assert key_of(content) == KEY.public_key()


@pytest.mark.parametrize(
    "content",
    [
        request(names=("bus-tcu",)),
        request(names=("car-tcu\x00",)),
        request(names=("car-tc\u057d",)),
        request(names=("car-tcu", "bus-tcu")),
        request(alternative=(x509.UniformResourceIdentifier(URI.replace("car", "bus")),)),
        request(alternative=(x509.UniformResourceIdentifier(URI.replace("acme", "umbra")),)),
        request(alternative=(x509.UniformResourceIdentifier(URI.replace(DOMAIN, "other.example")),)),
        request(alternative=(x509.UniformResourceIdentifier(URI), x509.DNSName("gate.example"))),
        request(alternative=(x509.DNSName("car-tcu"),)),
    ],
    ids=["other", "nul", "look-alike", "two", "uri device", "uri tenant", "uri domain", "second name", "dns"],
)
def test_a_request_in_another_name_is_refused(content: bytes) -> None:
    """A certificate that names the device is not given to who asks in another name, however alike."""
    with pytest.raises(CsrError, match="car-tcu or absent"):
        key_of(content)


@pytest.mark.parametrize(
    "make",
    [lambda: rsa.generate_private_key(65537, 2048), lambda: ec.generate_private_key(ec.SECP384R1())],
    ids=["RSA", "P-384"],
)
def test_a_key_of_another_kind_is_refused(make: Callable[[], Key]) -> None:
    """As the profile would refuse the certificate."""
    with pytest.raises(CsrError, match="neither P-256 nor Ed25519"):
        key_of(request(make()))


def test_a_request_signed_with_another_key_is_refused() -> None:
    """Who does not hold the private key cannot ask for its certificate."""
    mine = request()
    other = request(ec.generate_private_key(ec.SECP256R1()))
    spki = KEY.public_key().public_bytes(Encoding.X962, _POINT)
    theirs = x509.load_der_x509_csr(other).public_key()
    assert isinstance(theirs, ec.EllipticCurvePublicKey)
    forged = mine.replace(spki, theirs.public_bytes(Encoding.X962, _POINT))
    with pytest.raises(CsrError, match="not signed with its own key"):
        key_of(forged)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"-----BEGIN CERTIFICATE REQUEST-----\n",
        request()[:-1],
        request() + b"x",
        b"\x30\x84" + b"\xff" * 9,
    ],
)
def test_what_is_no_request_is_refused_with_a_reason(content: bytes) -> None:
    """Never a traceback."""
    with pytest.raises(CsrError, match="cannot be parsed"):
        key_of(content)


def test_a_request_that_is_too_large_is_not_parsed() -> None:
    """The bound is on the bytes, before any of them is looked at."""
    with pytest.raises(CsrError, match="larger"):
        key_of(b"x" * (MAX_CSR_BYTES + 1))


def test_text_before_the_pem_does_not_matter() -> None:
    """`openssl req -text` writes some."""
    assert key_of(b"Certificate Request:\n" + request(encoding=Encoding.PEM)) == KEY.public_key()
