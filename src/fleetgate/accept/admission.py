"""What is decided before the judge sees a byte: how fast may this one send? Whether the gate can store is room.py's.

Token buckets: one for each rate of a limit (`limits`), and one for each certificate that control does not know. A large
message counts as several: what it costs edge and load grows with its bytes.
"""

from __future__ import annotations

import math
from collections import OrderedDict

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


class Bucket:
    """What is `left` of a rate as of `at` (monotonic seconds): at most `burst`. It may be overdrawn: something passes
    while one is left, so a batch is never cut in half, and what is known only afterwards is charged afterwards."""

    __slots__ = ("at", "burst", "left", "per_second")

    def __init__(self, rate: Rate) -> None:
        self.burst = float(rate.most)
        self.per_second = rate.most / rate.seconds
        self.left = self.burst
        self.at = -math.inf

    def refill(self, now: float) -> float:
        """What is left at `now`, in monotonic seconds."""
        left = self.left + (now - self.at) * self.per_second
        self.at = now
        self.left = left = left if left < self.burst else self.burst
        return left

    def wait(self) -> float:
        """Seconds until something may pass, as of the last `refill`; 0.0 when it may. A millisecond is added, so that
        rounding turns away nobody who has waited as told."""
        return 0.0 if self.left >= 1 else (1.0 - self.left) / self.per_second + 0.001

    def take(self, count: int, now: float) -> float:
        """0.0 when so many may pass, which are then charged; else the seconds until they may."""
        self.refill(now)
        wait_s = self.wait()
        if not wait_s:
            self.left -= count
        return wait_s

    @property
    def full(self) -> bool:
        """Whether nothing is missing, as of the last `refill`."""
        return self.left >= self.burst


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
