"""Which messages of a flood are kept as samples. Pure: the time is passed in.

A device's first refusals for a reason say nearly everything, so a few are taken at once and then one a minute. All
devices together have a limit too, and what is new (a device's first sample for its reason) has one of its own: a
thousand devices that repeat themselves cannot crowd out the first message of the next one.
"""

from __future__ import annotations

from collections import OrderedDict

Key = tuple[str, str, str]
"""(tenant, device id, reason or signal)."""

AT_ONCE = 4
MORE_SECONDS = 60.0
NEW_PER_SECOND, NEW_AT_ONCE = 50.0, 100.0
MORE_PER_SECOND, MORE_AT_ONCE = 10.0, 50.0
"""Of the whole gate: at most 60 samples a second, some 300 KB/s where each has its 4 KiB, and a ms of CPU."""

MAX_REMEMBERED = 20_000
"""Devices and reasons, the latest; who is forgotten is new again, within the limit of what is new."""


class _Tokens:
    """`burst` at once, then `rate` a second."""

    __slots__ = ("_at_s", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._left = burst
        self._at_s = 0.0

    def has(self, now_s: float) -> bool:
        self._left = min(self._burst, self._left + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        return self._left >= 1.0

    def take(self) -> None:
        self._left -= 1.0


class Sampling:
    """Remembers who was sampled lately."""

    def __init__(self) -> None:
        self._of_device: OrderedDict[Key, _Tokens] = OrderedDict()
        self._new = _Tokens(NEW_PER_SECOND, NEW_AT_ONCE)
        self._more = _Tokens(MORE_PER_SECOND, MORE_AT_ONCE)

    def wants(self, key: Key, now_s: float) -> bool:
        """Whether this message is kept; `now_s` in monotonic seconds."""
        own = self._of_device.get(key)
        if own is not None and not own.has(now_s):
            return False
        gate = self._more if own is not None else self._new
        if not gate.has(now_s):
            return False
        gate.take()
        if own is None:
            own = self._of_device[key] = _Tokens(1 / MORE_SECONDS, AT_ONCE)
            own.has(now_s)
            if len(self._of_device) > MAX_REMEMBERED:
                self._of_device.popitem(last=False)
        else:
            self._of_device.move_to_end(key)
        own.take()
        return True
