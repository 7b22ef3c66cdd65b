"""The device's own files: which there are, whether they can be read, and what is in them.

Decides how each file is opened (bounded, never waiting for a pipe, never asking for a passphrase) and which of its
faults can be seen in it alone, or in two of them beside one another. What the certificate says is `certificate`'s.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from msgspec import Struct

from fleetgate.control.profile import key_digest_of
from fleetgate.control.records import is_id
from fleetgate.doctor.findings import Check, Finding, cannot_tell, good, wrong

CERTIFICATE, KEY, CA, DEVICE = "certificate file", "private key", "CA file", "device file"
MAX_FILE_BYTES = 1024 * 1024
MAX_CERTIFICATES = 32  # of one file: a chain has three or four, and each is compared with each

_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")


class Paths(NamedTuple):
    """Where the files are; None for one that is not given."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None
    device: Path | None = None

    @classmethod
    def of_bundle(cls, directory: Path) -> Paths:
        """As `control.bundle` lays them out."""
        return cls(*(directory / name for name in ("certificate.pem", "private.pem", "ca.pem", "device.json")))


class DeviceFile(Struct, frozen=True):
    """device.json. Its repr tells no key."""

    tenant: str
    device_id: str
    kid: int
    mac_key: bytes

    def __repr__(self) -> str:
        return f"DeviceFile(tenant={self.tenant!r}, device_id={self.device_id!r}, kid={self.kid})"


class Papers:
    """What was read: `leaf` and what stands behind it (`sent`), the CAs that the server is verified with, device.json.

    Nothing is there for a file that is not given or cannot be read; `checks` say why. `key_fits`: certificate and key
    can be presented together.
    """

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.leaf: x509.Certificate | None = None
        self.sent: list[x509.Certificate] = []
        self.cas: list[x509.Certificate] = []
        self.device: DeviceFile | None = None
        self.key_fits = False


class Unusable(Exception):
    """A file that cannot be used; the text says what is wrong with it, and nothing of a key in it."""

    def __init__(self, finding: Finding, what: str) -> None:
        super().__init__(what)
        self.finding = finding


def read_papers(paths: Paths) -> Papers:
    """Reads every file that is given. Never raises for anything in them."""
    papers = Papers()
    public_key: CertificatePublicKeyTypes | None = None
    if paths.certificate is not None:
        try:
            papers.leaf, papers.sent = _chain(_read(paths.certificate))
            behind = f"and {len(papers.sent)} behind it" if papers.sent else "alone"
            papers.checks.append(good(CERTIFICATE, f"{paths.certificate}: the device's certificate, {behind}"))
        except Unusable as error:
            papers.checks.append(wrong(CERTIFICATE, error.finding, f"{paths.certificate}: {error}"))
    if paths.key is not None:
        try:
            public_key = _public_half(_read(paths.key))
            papers.checks.append(_key_check(paths.key, public_key, papers))
        except Unusable as error:
            papers.checks.append(wrong(KEY, error.finding, f"{paths.key}: {error}"))
        papers.checks += _exposed(KEY, paths.key)
    if paths.ca is not None:
        try:
            papers.cas = _authorities(_read(paths.ca))
            papers.checks.append(good(CA, f"{paths.ca}: {_names(papers.cas)}"))
        except Unusable as error:
            papers.checks.append(wrong(CA, error.finding, f"{paths.ca}: {error}"))
    if paths.device is not None:
        try:
            device = papers.device = _device(_read(paths.device))
            papers.checks.append(
                good(DEVICE, f"{paths.device}: {device.device_id} of {device.tenant}, key id {device.kid}")
            )
        except Unusable as error:
            papers.checks.append(wrong(DEVICE, error.finding, f"{paths.device}: {error}"))
        papers.checks += _exposed(DEVICE, paths.device)
    return papers


def _key_check(path: Path, public_key: CertificatePublicKeyTypes, papers: Papers) -> Check:
    if papers.leaf is None:
        return cannot_tell(KEY, f"{path}: a private key, but there is no certificate to compare it with")
    if key_digest_of(public_key) != key_digest_of(papers.leaf.public_key()):
        whose = ""
        if any(key_digest_of(public_key) == key_digest_of(other.public_key()) for other in papers.sent):
            whose = "; it is that of a CA that stands behind it"
        return wrong(KEY, Finding.KEY_MISMATCH, f"{path}: it is not the key of the certificate{whose}")
    papers.key_fits = True
    return good(KEY, f"{path}: it is the key of the certificate")


def _read(path: Path) -> bytes:
    """Raises Unusable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Unusable(Finding.FILE_MISSING, "it is not a regular file")
            if found.st_size > MAX_FILE_BYTES:
                raise Unusable(Finding.FILE_DAMAGED, f"it has more than {MAX_FILE_BYTES} bytes")
            return file.read(MAX_FILE_BYTES)
    except FileNotFoundError:
        raise Unusable(Finding.FILE_MISSING, "there is no such file") from None
    except OSError as error:
        raise Unusable(Finding.FILE_MISSING, f"cannot read it ({error.strerror})") from None


def _exposed(check: str, path: Path) -> list[Check]:
    try:
        mode = path.stat().st_mode
    except OSError:
        return []  # told by reading it
    if not stat.S_ISREG(mode) or not mode & 0o077:
        return []
    what = f"{path}: other users of this machine may open it (mode {mode & 0o777:04o})"
    return [wrong(check, Finding.SECRET_EXPOSED, what)]


def _labels(data: bytes, wanted: str) -> list[str]:
    """The kinds of the file's PEM blocks. Raises Unusable where there is none."""
    labels = [label.decode() for label in _LABEL.findall(data)]
    if labels:
        return labels
    if not data.strip():
        raise Unusable(Finding.FILE_DAMAGED, "it is empty")
    form = "it is DER, not PEM" if data[:1] == b"\x30" else f"it holds no {wanted} in PEM"
    raise Unusable(Finding.FILE_DAMAGED, form)


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises Unusable."""
    return _certificates_in(_read(path))


def _certificates_in(data: bytes) -> list[x509.Certificate]:
    labels = _labels(data, "certificate")
    if not any(label.endswith("CERTIFICATE") for label in labels):
        raise Unusable(Finding.FILES_SWAPPED, f"it holds no certificate, but: {labels[0].lower()}")
    if len(labels) > MAX_CERTIFICATES:
        raise Unusable(Finding.FILE_DAMAGED, f"it holds more than {MAX_CERTIFICATES} certificates")
    try:
        found = x509.load_pem_x509_certificates(data)
        for certificate in found:  # parsed to the end here: the library does it piece by piece, at the first use
            _ = certificate.extensions, certificate.subject, certificate.issuer, certificate.signature_hash_algorithm
            _ = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            key_digest_of(certificate.public_key())
    except Exception:  # the parser's set of errors is open
        raise Unusable(Finding.FILE_DAMAGED, "a certificate in it cannot be read: it is cut off or altered") from None
    return found


def is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def name_of(name: x509.Name) -> str:
    return name.rfc4514_string() or "(no name)"


def _names(certificates: Sequence[x509.Certificate]) -> str:
    return "; ".join(name_of(certificate.subject) for certificate in certificates)


def _chain(data: bytes) -> tuple[x509.Certificate, list[x509.Certificate]]:
    """Raises Unusable."""
    leaf, *sent = _certificates_in(data)
    if is_ca(leaf) and not all(map(is_ca, sent)):
        what = f"{name_of(leaf.subject)}, a CA, stands before the device's certificate"
        raise Unusable(Finding.FILES_SWAPPED, what)
    return leaf, sent


def _authorities(data: bytes) -> list[x509.Certificate]:
    """Raises Unusable."""
    found = _certificates_in(data)
    if not any(map(is_ca, found)):
        raise Unusable(Finding.FILES_SWAPPED, f"it holds no CA's certificate, but that of {_names(found)}")
    return found


def _public_half(data: bytes) -> CertificatePublicKeyTypes:
    """Raises Unusable; nothing of the key stands in its text."""
    labels = _labels(data, "private key")
    if not any(label.endswith("PRIVATE KEY") for label in labels):
        raise Unusable(Finding.FILES_SWAPPED, f"it holds no private key, but: {labels[0].lower()}")
    try:
        public_key = load_pem_private_key(data, password=None).public_key()
        key_digest_of(public_key)  # type: ignore[arg-type]  # of a kind that no certificate has: told below
    except TypeError:
        raise Unusable(Finding.KEY_ENCRYPTED, "it is encrypted with a passphrase") from None
    except (ValueError, UnsupportedAlgorithm, AttributeError):
        raise Unusable(Finding.FILE_DAMAGED, "the private key in it cannot be read: it is cut off or altered") from None
    return public_key  # type: ignore[return-value]


def _device(data: bytes) -> DeviceFile:
    """Raises Unusable; nothing of the key stands in its text."""
    if _LABEL.search(data):
        raise Unusable(Finding.FILES_SWAPPED, "it holds PEM, not the JSON of device.json")
    try:
        device = _decode(data)
    except msgspec.ValidationError as error:
        raise Unusable(Finding.FILE_DAMAGED, f"a field is missing or of another kind ({error})") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Unusable(Finding.FILE_DAMAGED, "it is not JSON: cut off or altered") from None
    if not (is_id(device.tenant) and is_id(device.device_id)):
        raise Unusable(Finding.FILE_DAMAGED, "tenant and device_id must match [a-z0-9][a-z0-9._-]{0,62}")
    if not 0 <= device.kid < 2**32 or len(device.mac_key) != 32:
        raise Unusable(Finding.FILE_DAMAGED, "kid must be a number of 32 bits and mac_key the base64 of 32 bytes")
    return device


_decode = msgspec.json.Decoder(DeviceFile).decode
