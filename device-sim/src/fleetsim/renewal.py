"""Decides how a device comes by its next credential: when, with which key, and what a crash leaves of it.

Written from schemas/renewal.md. The new private key is on the disk before anybody is asked, so that whoever asks again,
after a lost answer or a crash, asks with the same key. What was answered is collected beside the bundle, in the
directory `renewal`; renaming that to `renewed` is the one step that decides, and what follows it is repeated until it
is done. Sending the request is `renewer`'s.
"""

import base64
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey

PENDING, DONE = "renewal", "renewed"
# "The extension 2.25.147609419007914581951644633700549689093": the key that an answer is sealed for.
AGREEMENT_KEY = x509.ObjectIdentifier("2.25.147609419007914581951644633700549689093")
_ALGORITHMS = ["ECDH-ES", "A256GCM"]
_FILES = ("private.pem", "certificate.pem", "device.json")

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class RenewalError(Exception):
    """An answer that is no renewal of this device; the text says why and holds no key."""


class _Answer(msgspec.Struct):
    certificate: str
    kid: int
    mac_key: str


class Renewal:
    """The next credential of the device whose bundle is in `directory`."""

    def __init__(self, directory: Path) -> None:
        """Raises RenewalError where the certificate cannot be read."""
        self._directory = directory
        self._agreement: x25519.X25519PrivateKey | None = None
        try:
            self._certificate = _leaf((directory / "certificate.pem").read_bytes())
        except (OSError, ValueError):
            raise RenewalError(f"{directory / 'certificate.pem'} is no certificate; enrol the device again") from None

    @property
    def due_ms(self) -> float:
        """Two thirds of the certificate's lifetime, in Unix milliseconds; 0 where it was asked for already."""
        if (self._directory / PENDING / "private.pem").exists():
            return 0.0
        begin, end = self._certificate.not_valid_before_utc, self._certificate.not_valid_after_utc
        return (begin + (end - begin) * 2 / 3).timestamp() * 1000

    def request(self) -> bytes:
        """The certificate request, in PEM, for a key that is on the disk. Raises OSError."""
        key = self._key()
        builder = x509.CertificateSigningRequestBuilder().subject_name(self._certificate.subject)
        names = self._certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        builder = builder.add_extension(names, critical=False)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
        # Ed25519 signs and does nothing else: the answer is sealed for a key made for this one question.
        self._agreement = x25519.X25519PrivateKey.generate()
        spki = self._agreement.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        builder = builder.add_extension(x509.UnrecognizedExtension(AGREEMENT_KEY, spki), critical=False)
        return builder.sign(key, None).public_bytes(Encoding.PEM)

    def accept(self, content: bytes) -> None:
        """Makes the answer to `request` the device's bundle. Raises RenewalError, OSError; then it is as before."""
        key = self._key()
        try:
            answer = _decode_answer(content)
            leaf = _leaf(answer.certificate.encode())
            mac_key = jwe.decrypt_compact(answer.mac_key, self._opener(key), algorithms=_ALGORITHMS).plaintext
        except (msgspec.MsgspecError, ValueError, JoseError) as error:
            raise RenewalError(f"the answer cannot be read ({type(error).__name__})") from None
        if leaf.public_key() != key.public_key():
            raise RenewalError("the certificate is not of the key that was asked for")
        if _names(leaf) != _names(self._certificate):
            raise RenewalError("the certificate is of another device")
        if mac_key is None or len(mac_key) != 32:
            raise RenewalError("the MAC key has not 32 bytes")
        facts: dict[str, Any] = msgspec.json.decode((self._directory / "device.json").read_bytes())
        facts |= {"kid": answer.kid, "mac_key": base64.b64encode(mac_key).decode()}
        pending = self._directory / PENDING
        _write(pending / "certificate.pem", answer.certificate.encode(), 0o644)
        _write(pending / "device.json", msgspec.json.encode(facts), 0o600)
        pending.rename(self._directory / DONE)
        finish(self._directory)
        self._certificate = leaf

    def _key(self) -> Key:
        """The next private key: the one that was asked with before, else a new one of the same kind, now durable."""
        path = self._directory / PENDING / "private.pem"
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            now = _private(self._directory / "private.pem")
            new: Key = ed25519.Ed25519PrivateKey.generate()
            if isinstance(now, ec.EllipticCurvePrivateKey):
                new = ec.generate_private_key(ec.SECP256R1())
            _write(path, new.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
            _sync(self._directory)
        return _private(path)

    def _opener(self, key: Key) -> ECKey | OKPKey:
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return ECKey.import_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        if self._agreement is None:
            raise RenewalError("nothing was asked")
        return OKPKey.import_key(self._agreement.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def finish(directory: Path) -> None:
    """Puts a renewal in the place of the bundle, where one was decided; as often as a crash interrupts it."""
    done = directory / DONE
    if not done.is_dir():
        return
    _sync(directory)
    for name in _FILES:
        if (done / name).exists():
            (done / name).replace(directory / name)
    _sync(directory)
    shutil.rmtree(done)


def _private(path: Path) -> Key:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise RenewalError(f"{path} is neither a P-256 nor an Ed25519 key")
    return key


def _leaf(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pem)[0]


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def _write(path: Path, content: bytes, mode: int) -> None:
    """A file that is there as a whole or not at all, and stays."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_decode_answer = msgspec.json.Decoder(_Answer).decode
