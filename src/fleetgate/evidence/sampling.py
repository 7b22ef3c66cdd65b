"""Which messages of a flood are kept as samples. Pure: the time is passed in.

A device's first refusals for a reason say nearly everything, so a few are taken at once and then one a minute. All
devices together have a limit too, and what is new (a device's first sample for its reason) has one of its own: a
thousand devices that repeat themselves cannot crowd out the first message of the next one.
"""

from __future__ import annotations

from collections import OrderedDict

from fleetgate.bucket import Bucket
from fleetgate.rates import Rate

Key = tuple[str, str, str]
"""(tenant, device id, reason or signal)."""

OF_A_DEVICE = Rate(4, 4 * 60.0)
NEW = Rate(100, 2.0)
MORE = Rate(50, 5.0)
"""`NEW` and `MORE` of the whole gate: at most 60 samples a second, some 300 KB/s where each has its 4 KiB, and a ms of
CPU."""

MAX_REMEMBERED = 20_000
"""Devices and reasons, the latest; who is forgotten is new again, within the limit of what is new."""


class Sampling:
    """Remembers who was sampled lately."""

    def __init__(self) -> None:
        self._of_device: OrderedDict[Key, Bucket] = OrderedDict()
        self._new = Bucket(NEW)
        self._more = Bucket(MORE)

    def wants(self, key: Key, now_s: float) -> bool:
        """Whether this message is kept; `now_s` in monotonic seconds."""
        own = self._of_device.get(key)
        if own is not None and own.refill(now_s) < 1:
            return False
        gate = self._more if own is not None else self._new
        if gate.take(1, now_s):
            return False
        if own is None:
            own = self._of_device[key] = Bucket(OF_A_DEVICE)
            if len(self._of_device) > MAX_REMEMBERED:
                self._of_device.popitem(last=False)
        else:
            self._of_device.move_to_end(key)
        own.take(1, now_s)
        return True
