"""What is decided before the judge sees a byte: may this device send now? Whether the gate can store is room.py's.

A token bucket for each device, and for each certificate that control does not know. A large message counts as several:
what it costs edge and load grows with its bytes. Limits of tenants and of the gate come with a later part.
"""

from __future__ import annotations

import math
from collections import OrderedDict

MESSAGE_BYTES = 1024
"""So many bytes of a packet or envelope count as a message more: the dearest body of 64 KiB, of names that nobody
knows, takes 7 ms to judge, as many user properties 16 ms to read; a usual message of 170 bytes takes 0.03 to 0.06."""

STRANGER_RATE, STRANGER_BURST = 10.0, 100.0
"""Messages of a certificate that is refused: one batch to be told of at once, and then few. It is to stop."""

MAX_STRANGERS = 1_000


def cost(size: int) -> int:
    """What a packet of MQTT, or an envelope over HTTPS, of so many bytes takes from a bucket."""
    return 1 + size // MESSAGE_BYTES


class Bucket:
    """Messages a device may still send: `burst` at once, refilled at `rate` a second.

    `used_at` is when it was last used, in monotonic seconds.

    A request passes while the bucket is above zero and may overdraw it, so that a batch is never cut in half.
    """

    __slots__ = ("_burst", "_rate", "_tokens", "used_at")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self.used_at = -math.inf

    def limit(self, rate: float, burst: float) -> None:
        """Other limits from now on; what is in the bucket stays."""
        self._rate, self._burst = rate, burst

    def take(self, count: int, now: float) -> float:
        """0.0 when the messages may pass, else the seconds until the bucket is above zero again. `now` in seconds."""
        tokens = self._tokens + (now - self.used_at) * self._rate
        self.used_at = now
        if tokens > self._burst:
            tokens = self._burst
        if tokens <= 0:
            self._tokens = tokens
            return max(0.001, (1.0 - tokens) / self._rate)
        self._tokens = tokens - count
        return 0.0


class Strangers:
    """Buckets of whom the records of no device answer for: who is refused, by the device that the certificate names, or
    who asks to renew, by the certificate. Only of the latest: whoever has more certificates than that gets as many more
    answers."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, who: str, count: int, now: float) -> float:
        """As `Bucket.take`."""
        bucket = self._buckets.pop(who, None) or Bucket(STRANGER_RATE, STRANGER_BURST)
        self._buckets[who] = bucket
        if len(self._buckets) > MAX_STRANGERS:
            self._buckets.popitem(last=False)
        return bucket.take(count, now)
