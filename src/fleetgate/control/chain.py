"""Whether a leaf has a path to the trust bundle, where no handshake of ours has checked it: behind a proxy, in a file.

Decides with `cryptography`'s own path validation (RFC 5280: signatures, validity, CA flag and path length, key usage,
name constraints; a critical extension that it does not know refuses), bounded in depth and in what it is given
(docs/adr/0009). What the leaf may look like beyond that is `control.profile`'s; revocation is `control.revocation`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from fleetgate.control.profile import ProfileError

MAX_INTERMEDIATES: Final = 8  # given beside the leaf; a real chain has one or two
MAX_DEPTH: Final = 5  # CAs between leaf and anchor


class PathError(ProfileError):
    """No path from the leaf to the trust bundle; the text says what stood in the way."""


class Paths:
    """Paths to the CA certificates of a trust bundle. Each of them may vouch, whether it is a root or not."""

    def __init__(self, bundle: Sequence[x509.Certificate]) -> None:
        """Raises ValueError for an empty bundle."""
        self._bundle = list(bundle)
        # A name is the profile's to ask for, with a sentence of its own; everything else is as for the public web.
        leaves = ExtensionPolicy.webpki_defaults_ee().may_be_present(
            x509.SubjectAlternativeName, Criticality.AGNOSTIC, None
        )
        self._policy = (
            PolicyBuilder()
            .store(Store(self._bundle))
            .max_chain_depth(MAX_DEPTH)
            .extension_policies(ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=leaves)
        )

    def verified(
        self, leaf: x509.Certificate, intermediates: Sequence[x509.Certificate], now_ms: int
    ) -> tuple[x509.Certificate, ...]:
        """The path from the leaf through the bundle, as far up as it goes. Raises PathError."""
        if len(intermediates) > MAX_INTERMEDIATES:
            raise PathError(f"more than {MAX_INTERMEDIATES} certificates come with the leaf")
        now = datetime.fromtimestamp(now_ms // 1000, UTC).replace(tzinfo=None)
        try:
            found = self._policy.time(now).build_client_verifier().verify(leaf, list(intermediates))
        except VerificationError as error:
            raise PathError(_in_words(str(error))) from None
        except Exception:  # the parser's set of errors is open, and it reads much of a certificate only when asked
            raise PathError("a certificate of the chain cannot be parsed") from None
        return self.up(found.chain)

    def up(self, path: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
        """A verified path (of any leaf, or of its CAs) as far as the bundle goes.

        A validation, this one or OpenSSL's, ends at the first certificate of the bundle; those above it are told apart
        by issuers and revocation lists too.
        """
        whole = list(path)
        while (above := self._issuer_of(whole)) is not None:
            whole.append(above)
        return tuple(whole)

    def _issuer_of(self, path: Sequence[x509.Certificate]) -> x509.Certificate | None:
        """None behind a root, and where CAs vouch for each other in a circle."""
        last = path[-1]
        if last.issuer == last.subject:
            return None
        for candidate in self._bundle:
            if candidate.subject == last.issuer and candidate not in path and _signed(last, candidate):
                return candidate
        return None


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _in_words(error: str) -> str:
    detail = error.removeprefix("validation failed: ").removeprefix("candidates exhausted: ")
    return f"no path from the certificate to the trust bundle: {detail}"
