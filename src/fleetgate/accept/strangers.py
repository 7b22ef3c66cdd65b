"""Those for whom no device of the records answers: what they are called, how often they are answered and logged.

Anybody can be one, as often as he likes, so all that is kept of them is bounded. What devices may do is decided by
`limits`; that somebody is a stranger, by whoever looked.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from fleetgate import log
from fleetgate.bucket import Bucket
from fleetgate.clock import Clock
from fleetgate.control.profile import CertificateIdentity
from fleetgate.rates import Rate

STRANGER = Rate(100, 10.0)
"""Messages of a certificate that is refused: one batch to be told of at once, and then few. It is to stop."""

MAX_STRANGERS = 1_000
KEY_DIGITS = 32  # of 64: 128 bits, so that nobody makes himself a key that is counted with another's
LOGS_PER_SECOND = 5  # of each listener's room


def who(identity: CertificateIdentity | None, address: str) -> str:
    """The credential that was shown, named after its device and its key, or for want of one the address: whose
    connections are counted together. Not the device: who has stolen a credential of it is not to use up what the device
    gets with its next."""
    if identity is None:
        return address.rpartition(":")[0]
    return f"{identity.tenant}/{identity.device_id} {identity.key_digest.hex()[:KEY_DIGITS]}"


def stranger_log(logger: Any, clock: Clock) -> log.Sparse:
    """For what strangers can cause."""
    return log.Sparse(logger, LOGS_PER_SECOND, clock.monotonic)


class Strangers:
    """Buckets of whom the records of no device answer for: who is refused, by the credential, or who asks to renew, by
    the certificate. Only of the latest: whoever has more certificates than that gets as many more answers."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, name: str, count: int, now: float) -> float:
        """As `Bucket.take`."""
        bucket = self._buckets.pop(name, None) or Bucket(STRANGER)
        self._buckets[name] = bucket
        if len(self._buckets) > MAX_STRANGERS:
            self._buckets.popitem(last=False)
        return bucket.take(count, now)
