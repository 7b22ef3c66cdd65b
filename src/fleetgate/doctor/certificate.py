"""The device's certificate: its time, its profile, whom it names, and the way from it to a trusted root.

Explains; it lets nobody in. The profile's own word is that of `control.profile`, the chain's that of `control.chain`:
where they refuse and nothing here says why, their sentence is told. Time is an argument (Unix ms).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleetgate.control.chain import PathError, Paths
from fleetgate.control.profile import (
    DEVICE_NAME,
    MAX_VALIDITY,
    CertificateIdentity,
    ProfileError,
    check_public_key,
    identity_of,
)
from fleetgate.doctor.files import DeviceFile, is_ca, name_of
from fleetgate.doctor.findings import Check, Finding, Who, cannot_tell, good, wrong

VALIDITY, PROFILE, NAMES, CHAIN = "validity", "profile", "names", "chain"
MAX_DEPTH = 8
MAX_SHOWN = 120  # characters of a text that somebody else chose

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)
_PURPOSES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}


class Named(NamedTuple):
    """What the certificate's one SPIFFE URI says."""

    trust_domain: str
    who: Who


def named_by(leaf: x509.Certificate) -> Named | None:
    """Whom the certificate names, whatever else is wrong with it; None where that cannot be told."""
    names = _extension(leaf, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []
    found = [match for uri in uris if (match := DEVICE_NAME.fullmatch(uri)) is not None]
    return Named(found[0][1], Who(found[0][2], found[0][3])) if len(found) == 1 else None


def trust_domain_of(cas: Iterable[x509.Certificate]) -> str | None:
    """The one trust domain that these CA certificates name, as those of `fleetgate ca init` do."""
    found = set()
    for ca in cas:
        names = _extension(ca, x509.SubjectAlternativeName)
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if names is not None else []:
            if uri.startswith("spiffe://"):
                found.add(uri.removeprefix("spiffe://"))
    return found.pop() if len(found) == 1 else None


# Time.


def check_validity(leaf: x509.Certificate, others: Sequence[x509.Certificate], now_ms: int) -> Check:
    """Whether the leaf is valid now. Where every other certificate at hand begins later too, it is the clock."""
    now, begins, ends = at(now_ms), leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now < begins:
        if others and all(now < other.not_valid_before_utc for other in others):
            what = f"it is {day(now)} here, and all certificates, the CAs' too, begin later (from {day(begins)})"
            return wrong(VALIDITY, Finding.CLOCK_OFF, what)
        return wrong(VALIDITY, Finding.NOT_YET_VALID, f"valid from {day(begins)} on, and here it is {day(now)}")
    if now > ends:
        return wrong(VALIDITY, Finding.EXPIRED, f"it ended on {day(ends)}, {_span(now - ends)} ago")
    soon = "; renew it soon" if now > ends - (ends - begins) / 3 else ""
    return good(VALIDITY, f"until {day(ends)}, {_span(ends - now)} from now{soon}")


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def at(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms / 1000, UTC)


def day(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%MZ")


def _span(time: timedelta) -> str:
    if time.days:
        return f"{time.days} days"
    hours = time.seconds // 3600
    return f"{hours} hours" if hours else f"{time.seconds // 60} minutes"


# Profile.


def check_profile(leaf: x509.Certificate, trust_domain: str | None) -> list[Check]:
    """Everything about the leaf that does not fit; `trust_domain` is the gate's, None where it is not known."""
    found = [wrong(PROFILE, finding, what) for finding, what in _misfits(leaf, trust_domain)]
    try:
        named = named_by(leaf)
        domain = trust_domain or (named.trust_domain if named is not None else "")
        identity: CertificateIdentity = identity_of(leaf, domain)
    except ProfileError as error:
        return found or [wrong(PROFILE, Finding.PROFILE, str(error))]
    if found:
        return found
    return [good(PROFILE, f"it speaks for {identity.device_id} of {identity.tenant} in {domain}, and for nobody else")]


def _misfits(leaf: x509.Certificate, trust_domain: str | None) -> Iterable[tuple[Finding, str]]:
    if is_ca(leaf):
        yield Finding.CA_AS_DEVICE, f"{clip(name_of(leaf.subject))} is a CA"
    try:
        check_public_key(leaf.public_key())
    except ProfileError:
        yield Finding.WRONG_KEY_TYPE, "its key is neither P-256 nor Ed25519"
    if leaf.not_valid_after_utc - leaf.not_valid_before_utc > MAX_VALIDITY:
        days = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days
        yield Finding.TOO_LONG, f"it is valid for {days} days"
    usage = _extension(leaf, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        yield Finding.WRONG_USAGE, "its key usage does not have digitalSignature"
    elif usage.key_cert_sign or usage.crl_sign:
        yield Finding.WRONG_USAGE, "its key usage lets it sign certificates or revocation lists"
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    listed = [_PURPOSES.get(purpose, purpose.dotted_string) for purpose in purposes] if purposes is not None else []
    if "clientAuth" not in listed or "anyExtendedKeyUsage" in listed:
        yield Finding.WRONG_EKU, f"its extended key usage is {', '.join(listed[:8])}" if listed else "it has none"
    yield from _misnamed(leaf, trust_domain)


def _misnamed(leaf: x509.Certificate, trust_domain: str | None) -> Iterable[tuple[Finding, str]]:
    names = list(_extension(leaf, x509.SubjectAlternativeName) or [])
    if len(names) != 1 or not isinstance(names[0], x509.UniformResourceIdentifier):
        shown = ", ".join(clip(f"{_kind(name)}:{name.value}") for name in names[:4])
        yield Finding.WRONG_SAN, f"it has {len(names)} names: {shown}" if names else "it has no name"
        return
    match = DEVICE_NAME.fullmatch(names[0].value)
    if match is None:
        yield Finding.WRONG_SAN, f"its name is {clip(names[0].value)}"
    elif trust_domain is not None and match[1] != trust_domain:
        yield Finding.OTHER_TRUST_DOMAIN, f"it is of {clip(match[1])}, the gate of {trust_domain}"


def _kind(name: x509.GeneralName) -> str:
    kinds = {x509.DNSName: "DNS", x509.IPAddress: "IP", x509.UniformResourceIdentifier: "URI", x509.RFC822Name: "email"}
    return kinds.get(type(name), "other")


def clip(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def check_names(named: Named, device: DeviceFile) -> list[Check]:
    """Whether device.json is that of the certificate."""
    who, found = named.who, []
    if device.tenant != who.tenant:
        what = f"device.json says tenant {device.tenant}, the certificate {who.tenant}"
        found.append(wrong(NAMES, Finding.TENANT_MISMATCH, what))
    if device.device_id != who.device_id:
        what = f"device.json says device {device.device_id}, the certificate {who.device_id}"
        found.append(wrong(NAMES, Finding.DEVICE_MISMATCH, what))
    return found or [good(NAMES, f"certificate and device.json say {who.device_id} of {who.tenant}")]


# The way to a root.


class Chain(NamedTuple):
    """A leaf and what is sent behind it."""

    leaf: x509.Certificate
    sent: Sequence[x509.Certificate] = ()


def check_chain(chain: Chain, anchors: Sequence[x509.Certificate], now_ms: int, *, sound: bool) -> Check:
    """Whether `anchors`, the gate's trust bundle, verify the chain. The verifier is asked only where nothing is wrong
    with the leaf by itself (`sound`): what it says is then about the chain."""
    gap = find_gap(chain, anchors, now_ms)
    if gap is not None:
        return wrong(CHAIN, *gap)
    if sound:
        try:
            Paths(anchors).verified(chain.leaf, chain.sent, now_ms)
        except PathError as error:
            return wrong(CHAIN, Finding.CHAIN_REFUSED, clip(str(error)))
    return good(CHAIN, f"issued by {clip(name_of(chain.leaf.issuer))}, and that leads to a trusted CA")


def check_chain_by_ca_file(chain: Chain, cas: Sequence[x509.Certificate], now_ms: int, *, sound: bool) -> Check:
    """The same on a vehicle, where the gate's trust bundle is not known. A CA file that names a trust domain is that of
    a gate with a CA of its own, and speaks for devices too; of any other one only a good answer counts."""
    found = check_chain(chain, cas, now_ms, sound=sound)
    whole = any(_signed(chain.leaf, other) for other in chain.sent)  # so that it may lead to a CA of the gate's bundle
    if found.finding is not Finding.UNKNOWN_ISSUER or trust_domain_of(cas) is not None or not whole:
        return found
    return cannot_tell(
        CHAIN,
        "it leads to no CA of the CA file, which may be for the server alone; the gate's trust bundle decides",
        "connect with --mqtt, or run this on the gate's machine",
    )


def find_gap(chain: Chain, anchors: Sequence[x509.Certificate], now_ms: int) -> tuple[Finding, str] | None:
    """Walks from the leaf upwards, and says where it does not go on; None when it comes to an anchor."""
    now, trusted = at(now_ms), {anchor.fingerprint(SHA256()) for anchor in anchors}
    current = chain.leaf
    for _ in range(MAX_DEPTH):
        if current.fingerprint(SHA256()) in trusted:
            return None
        others = (*anchors, *chain.sent)
        namesakes = [other for other in others if other.subject == current.issuer and other != current]
        issuers = [other for other in namesakes if _signed(current, other)]
        if not issuers:
            return _no_issuer(chain, current, bool(namesakes))
        valid = [issuer for issuer in issuers if issuer.not_valid_before_utc <= now <= issuer.not_valid_after_utc]
        if not valid:
            times = f"{day(issuers[0].not_valid_before_utc)} to {day(issuers[0].not_valid_after_utc)}"
            return Finding.ISSUER_EXPIRED, f"the CA {clip(name_of(current.issuer))} above it is valid from {times}"
        current = valid[0]
    return Finding.UNKNOWN_ISSUER, f"its chain has more than {MAX_DEPTH} certificates"


def _no_issuer(chain: Chain, current: x509.Certificate, namesakes: bool) -> tuple[Finding, str]:
    issuer = clip(name_of(current.issuer))
    if current.issuer == current.subject:
        own = current is chain.leaf
        what = "it is self-signed" if own else f"its root, {issuer}, is not one that the gate trusts"
        return Finding.UNKNOWN_ISSUER, what
    if namesakes:
        whose = "it" if current is chain.leaf else clip(name_of(current.subject))
        what = f"{whose} was not signed by the {issuer} that is known here: another CA has the same name"
        return Finding.UNKNOWN_ISSUER, what
    if current is chain.leaf:
        where = "none of the certificates behind it is" if chain.sent else "it stands alone in its file, without"
        return Finding.MISSING_INTERMEDIATE, f"{where} its issuer, {issuer}"
    return Finding.UNKNOWN_ISSUER, f"its chain ends at {issuer}, which is not known"


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # another key, another algorithm, or one that the library does not know
        return False
    return True


def _extension(certificate: x509.Certificate, kind: type[_Kind]) -> _Kind | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
