"""Revocation lists (CRLs) of an external PKI: which list may be used, and what the lists in force say of a chain.

Decides, for a list: its signature, that its issuer is a CA of the trust bundle that may sign lists, that it is whole
(no delta, no list of others' certificates, nothing critical that is not understood), that it has begun and says when
the next one comes, and that it is not older than the one it would replace. For a chain: good, revoked, or unknown, when
a list is older than the grace. An issuer without a list is not asked about: lists are an addition to the records of
control. Where lists come from is `accept.lists`'.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from msgspec import Struct

from fleetgate.control.profile import Issuance, authority_of
from fleetgate.errors import ConfigError

MAX_LIST_BYTES: Final = 8 * 1024 * 1024
"""Some 200,000 revoked certificates: taken apart in a second, in a thread of its own."""
AHEAD_MS: Final = 5 * 60 * 1000  # how far the clock of a CA may be ahead of ours

_KNOWN = (x509.CRLNumber, x509.AuthorityKeyIdentifier, x509.IssuingDistributionPoint)
_KNOWN_OF_ENTRY = (x509.CRLReason, x509.InvalidityDate)
_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


class ListError(ConfigError):
    """A revocation list that is not to be used; the text says why."""


class CertStatus(enum.Enum):
    """The terms of RFC 6960."""

    GOOD = enum.auto()
    REVOKED = enum.auto()
    UNKNOWN = enum.auto()


class RevocationList(Struct, frozen=True):
    """A list that was verified. `authority` as in `Issuance`; `scope` is its IssuingDistributionPoint in DER: of which
    certificates of the issuer it is (empty: of all); `number` is its CRL number, if it has one."""

    authority: bytes
    issuer: str
    scope: bytes
    serials: frozenset[int]
    number: int | None
    this_update_ms: int
    next_update_ms: int
    digest: bytes

    def check_successor(self, later: RevocationList) -> None:
        """Whether `later` may take this one's place. Raises ListError."""
        if later.authority != self.authority:
            raise ListError(f"it is of another issuer ({later.issuer}) than the one in force ({self.issuer})")
        if later.scope != self.scope:
            raise ListError(
                "it is for other certificates of its issuer than the one in force (issuingDistributionPoint) and "
                "would lift that one's revocations; where that is meant, give it an entry of its own, with another name"
            )
        by_number = self.number is not None and later.number is not None and later.number < self.number
        if by_number or later.this_update_ms < self.this_update_ms:
            raise ListError(
                f"it is older than the one in force (number {_number(later)} after {_number(self)}): "
                "somebody could undo a revocation with it"
            )


def read_list(
    content: bytes, bundle: Sequence[x509.Certificate], now_ms: int, *, only_cas: bool = False
) -> RevocationList:
    """The list in `content` (PEM or DER), verified with a CA of `bundle`. Raises ListError, whatever the bytes.

    `only_cas`: it may be one that is about no certificate but those of CAs.
    """
    if len(content) > MAX_LIST_BYTES:
        raise ListError(f"it is larger than {MAX_LIST_BYTES} bytes")
    try:
        return _read(content, bundle, now_ms, only_cas=only_cas)
    except ListError:
        raise
    except Exception:  # the parser's set of errors is open, and it reads most of a list only when asked
        raise ListError("it cannot be parsed as a revocation list in PEM or DER") from None


class RevocationLists:
    """The lists in force. `grace_ms` is how long one is used past its nextUpdate."""

    def __init__(self, lists: Iterable[RevocationList] = (), grace_ms: int = 0) -> None:
        self.lists = tuple(lists)
        self._grace_ms = grace_ms
        self._of: dict[bytes, list[RevocationList]] = {}
        for one in self.lists:
            self._of.setdefault(one.authority, []).append(one)

    def status(self, chain: Iterable[Issuance], now_ms: int) -> CertStatus:
        """What the lists say of the certificates of a chain. A list that is too old says nothing, of anybody."""
        found = CertStatus.GOOD
        for step in chain:
            for one in self._of.get(step.authority, ()):
                if now_ms > one.next_update_ms + self._grace_ms:
                    found = CertStatus.UNKNOWN
                elif step.serial in one.serials:
                    return CertStatus.REVOKED
        return found

    def stale(self, chain: Iterable[Issuance], now_ms: int) -> bool:
        """Whether a list of this chain should have been replaced by now."""
        return any(now_ms > one.next_update_ms for step in chain for one in self._of.get(step.authority, ()))

    def ages(self, now_ms: int) -> list[str]:
        """Of each list: "fresh", "stale" past its nextUpdate, "expired" past the grace too."""
        return [
            "expired"
            if now_ms > one.next_update_ms + self._grace_ms
            else "stale"
            if now_ms > one.next_update_ms
            else "fresh"
            for one in self.lists
        ]


def _read(content: bytes, bundle: Sequence[x509.Certificate], now_ms: int, *, only_cas: bool) -> RevocationList:
    pem = content.lstrip().startswith(b"-----BEGIN")
    crl = x509.load_pem_x509_crl(content) if pem else x509.load_der_x509_crl(content)
    issuer = _signer(crl, bundle)
    scope = _scope(crl, only_cas=only_cas)
    if crl.next_update_utc is None:
        raise ListError("it does not say when the next one comes (nextUpdate)")
    this_ms, next_ms = (int(at.timestamp()) * 1000 for at in (crl.last_update_utc, crl.next_update_utc))
    if this_ms > now_ms + AHEAD_MS:
        raise ListError("it begins in the future (thisUpdate): is a clock wrong?")
    number = _extension(crl.extensions, x509.CRLNumber)
    return RevocationList(
        authority_of(issuer),
        crl.issuer.rfc4514_string(),
        scope,
        frozenset(_serial(entry) for entry in crl),
        number.crl_number if number is not None else None,
        this_ms,
        next_ms,
        hashlib.sha256(content).digest(),
    )


def _signer(crl: x509.CertificateRevocationList, bundle: Sequence[x509.Certificate]) -> x509.Certificate:
    """The CA of the bundle whose key signed the list."""
    named = [ca for ca in bundle if ca.subject == crl.issuer]
    if not named:
        raise ListError(f"its issuer {crl.issuer.rfc4514_string()} is not in the trust bundle")
    allowed = [ca for ca in named if _may_sign_lists(ca)]
    if not allowed:
        raise ListError("its issuer may not sign revocation lists (no CA with keyUsage keyCertSign and cRLSign)")
    if not _strong(crl):
        raise ListError("it is signed with a hash that is not relied on any more")
    for ca in allowed:
        if _signed_by(crl, ca):
            return ca
    raise ListError("its signature is not that of the CA it names: it is forged or damaged")


def _may_sign_lists(ca: x509.Certificate) -> bool:
    """A key that signs lists and no certificates is not taken: no chain could be told to be under it."""
    constraints = _extension(ca.extensions, x509.BasicConstraints)
    usage = _extension(ca.extensions, x509.KeyUsage)
    return constraints is not None and constraints.ca and usage is not None and usage.crl_sign and usage.key_cert_sign


def _strong(crl: x509.CertificateRevocationList) -> bool:
    try:
        used = crl.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return False
    return used is None or isinstance(used, SHA256 | SHA384 | SHA512)  # None: EdDSA has its own


def _signed_by(crl: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]  # what is no signer's key raises
    except (TypeError, UnsupportedAlgorithm):
        return False


def _scope(crl: x509.CertificateRevocationList, *, only_cas: bool) -> bytes:
    for extension in crl.extensions:
        if isinstance(extension.value, x509.DeltaCRLIndicator):
            raise ListError("it is a delta of another list: publish a whole one")
        if extension.critical and not isinstance(extension.value, _KNOWN):
            raise ListError(f"it has a critical extension that is not understood ({extension.oid.dotted_string})")
    point = _extension(crl.extensions, x509.IssuingDistributionPoint)
    if point is None:
        return b""
    if point.indirect_crl:
        raise ListError("it lists certificates of other issuers (indirectCRL)")
    if point.only_contains_attribute_certs or point.only_some_reasons is not None:
        raise ListError("it covers only attribute certificates or some reasons: publish a whole one")
    if point.only_contains_ca_certs and not only_cas:
        raise ListError(
            "it is about certificates of CAs and no device (onlyContainsCACerts): say only_cas if that is meant"
        )
    return point.public_bytes()


def _serial(entry: x509.RevokedCertificate) -> int:
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CertificateIssuer):
            raise ListError("it lists certificates of other issuers (certificateIssuer)")
        if extension.critical and not isinstance(extension.value, _KNOWN_OF_ENTRY):
            raise ListError(f"an entry has a critical extension that is not understood ({extension.oid.dotted_string})")
    return entry.serial_number


def _extension(extensions: x509.Extensions, kind: type[_Kind]) -> _Kind | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _number(one: RevocationList) -> str:
    return "?" if one.number is None else str(one.number)
