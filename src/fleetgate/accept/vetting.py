"""Vetting: from a certificate that a handshake or a proxy hands over to the identity it speaks for, and for how long.

Decides by the leaf's profile, whether a CA of its chain may speak for the tenant that it names, and what the revocation
lists say of the chain. The chain is the one that was verified, never what the peer sent along, and what the bundle has
above it. Behind a proxy no handshake of ours has verified one, so `verify` does it. Issuers and lists may be others a
minute later: `refusal` is asked again for what is open. Whether the device is known, active or banned is the
registry's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.accept.known import issuer_of
from fleetgate.clock import Clock
from fleetgate.control.chain import Paths
from fleetgate.control.issuers import Issuers
from fleetgate.control.profile import CertificateIdentity, Issuance, ProfileError, identity_of, issuance_of
from fleetgate.control.revocation import CertStatus, RevocationLists
from fleetgate.judge import Flag, Reason

_STALE = Flag.STALE_REVOCATION.value


class NobodyKnows(Exception):
    """A revocation list of the certificate's chain is too old to say anything: come back later."""


class Vetting:
    """The rules in force, which may be replaced while it is used. Both listeners hold this one object.

    `on_verified` is told until when (Unix ms) the CAs of a verified chain are good, and `on_refused` each device that
    is refused because of its CAs or what their lists say.
    """

    def __init__(self, trust_domain: str, paths: Paths, issuers: Issuers, clock: Clock) -> None:
        self._trust_domain = trust_domain
        self._clock = clock
        self.paths = paths
        self.issuers = issuers
        self.lists = RevocationLists()
        self.on_verified: Callable[[str, int], None] = lambda issuer, until_ms: None
        self.on_refused: Callable[[tuple[str, str], str, int], None] = lambda key, issuer, now_ms: None

    def identity(self, leaf: bytes, chain: Sequence[bytes]) -> CertificateIdentity:
        """`chain` is the verified chain in DER, which begins with the leaf and need not end with a root. Raises
        ProfileError.

        A revoked certificate has an identity too: what is answered to it is said by `refusal`.
        """
        if len(chain) < 2 or chain[0] != leaf:
            raise ProfileError("no certificate authority vouches for the certificate")
        certificate = _leaf(leaf)
        try:
            issuances = (issuance_of(certificate, _parsed(chain[1])), *_above(self.paths, *chain[1:]))
        except Exception:  # OpenSSL verifies with keys that the parser does not know, and the peer chose them
            raise ProfileError("a CA certificate of the chain cannot be read: is its key of a common kind?") from None
        identity = msgspec.structs.replace(identity_of(certificate, self._trust_domain), issuances=issuances)
        self.on_verified(issuer_of(identity), min(_good_until_ms(ca) for ca in chain[1:]))
        self._check_issuers(identity)
        return identity

    def verify(self, leaf: bytes) -> CertificateIdentity:
        """The same for a leaf (DER) whose chain nobody has verified yet. Raises ProfileError."""
        path = self.paths.verified(_leaf(leaf), (), self._clock.now_ms())
        return self.identity(leaf, [one.public_bytes(Encoding.DER) for one in path])

    def refusal(self, identity: CertificateIdentity) -> Reason | None:
        """`revoked`, where a list says so. Raises ProfileError where its issuers may not speak for the tenant (any
        more), NobodyKnows where a list is past its grace."""
        self._check_issuers(identity)
        match self.lists.status(identity.issuances, self._clock.now_ms()):
            case CertStatus.UNKNOWN:
                self._tell_refused(identity)
                raise NobodyKnows
            case CertStatus.REVOKED:
                self._tell_refused(identity)
                return Reason.REVOKED
            case _:
                return None

    def flags(self, identity: CertificateIdentity) -> int:
        """What stands on each message that is accepted under this certificate now."""
        return _STALE if self.lists.stale(identity.issuances, self._clock.now_ms()) else 0

    def _tell_refused(self, identity: CertificateIdentity) -> None:
        self.on_refused((identity.tenant, identity.device_id), issuer_of(identity), self._clock.now_ms())

    def _check_issuers(self, identity: CertificateIdentity) -> None:
        try:
            digests = [digest for step in identity.issuances for digest in (step.ca, step.key)]
            self.issuers.check(identity.tenant, digests)
        except ProfileError:
            self._tell_refused(identity)
            raise


def _leaf(content: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(content)
    except Exception:  # the parser's set of errors is open, and the bytes are a stranger's
        raise ProfileError("the certificate cannot be parsed") from None


@lru_cache(maxsize=64)
def _parsed(ca: bytes) -> x509.Certificate:
    """Few CAs vouch for many leaves."""
    return x509.load_der_x509_certificate(ca)


@lru_cache(maxsize=64)
def _good_until_ms(ca: bytes) -> int:
    return int(_parsed(ca).not_valid_after_utc.timestamp() * 1000)


@lru_cache(maxsize=64)
def _above(paths: Paths, *cas: bytes) -> tuple[Issuance, ...]:
    """The steps from the issuing CA up, as far as the bundle goes: OpenSSL stops at its first certificate."""
    return tuple(issuance_of(ca, issuer) for ca, issuer in pairwise(paths.up([_parsed(ca) for ca in cas])))
