"""What is decided before the judge sees a byte: how fast may this one send? Whether the gate can store is room.py's.

Says what a message costs, and has a bucket for each certificate that control does not know; those of devices are
`limits`'. A large message counts as several: what it costs edge and load grows with its bytes.
"""

from __future__ import annotations

from collections import OrderedDict

from fleetgate.bucket import Bucket
from fleetgate.rates import Rate

MESSAGE_BYTES = 1024
"""So many bytes of a packet or envelope count as a message more: the dearest body of 64 KiB, of names that nobody
knows, takes 7 ms to judge, as many user properties 16 ms to read; a usual message of 170 bytes takes 0.03 to 0.06."""

STRANGER = Rate(100, 10.0)
"""Messages of a certificate that is refused: one batch to be told of at once, and then few. It is to stop."""

MAX_STRANGERS = 1_000


def cost(size: int) -> int:
    """What a packet of MQTT, or an envelope over HTTPS, of so many bytes takes from a bucket of messages."""
    return 1 + size // MESSAGE_BYTES


class Strangers:
    """Buckets of whom the records of no device answer for: who is refused, by the device that the certificate names, or
    who asks to renew, by the certificate. Only of the latest: whoever has more certificates than that gets as many more
    answers."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, who: str, count: int, now: float) -> float:
        """As `Bucket.take`."""
        bucket = self._buckets.pop(who, None) or Bucket(STRANGER)
        self._buckets[who] = bucket
        if len(self._buckets) > MAX_STRANGERS:
            self._buckets.popitem(last=False)
        return bucket.take(count, now)
