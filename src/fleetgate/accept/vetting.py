"""Vetting: from a certificate that a handshake or a proxy hands over to the identity it speaks for.

Decides by the leaf's profile, and whether a CA of its chain may speak for the tenant that it names. The chain is the
one that was verified, never what the peer sent along. Behind a proxy no handshake of ours has verified one, so
`verify` does it. Whether the device is known, active or banned is the registry's.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fleetgate.clock import Clock
from fleetgate.control.chain import Paths
from fleetgate.control.profile import CertificateIdentity, ProfileError, identity_of


class Vetting:
    """The rules in force; both listeners hold this one object."""

    def __init__(self, trust_domain: str, paths: Paths, clock: Clock) -> None:
        self._trust_domain = trust_domain
        self.paths = paths
        self._clock = clock

    def identity(self, leaf: bytes, chain: Sequence[bytes]) -> CertificateIdentity:
        """`chain` is the verified chain in DER, which begins with the leaf. Raises ProfileError."""
        if len(chain) < 2 or chain[0] != leaf:
            raise ProfileError("no certificate authority vouches for the certificate")
        return identity_of(leaf, self._trust_domain)

    def verify(self, leaf: bytes) -> CertificateIdentity:
        """The same for a leaf (DER) whose chain nobody has verified yet. Raises ProfileError."""
        try:
            certificate = x509.load_der_x509_certificate(leaf)
        except ValueError:
            raise ProfileError("the certificate cannot be parsed") from None
        path = self.paths.verified(certificate, (), self._clock.now_ms())
        return self.identity(leaf, [one.public_bytes(Encoding.DER) for one in path])
