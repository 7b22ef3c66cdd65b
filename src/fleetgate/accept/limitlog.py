"""Which shared limit is used up, in the log: whoever waits for others is told nothing of them, and has no row anywhere.

Decides how often that is said: each limit of each tenant, software version or issuer once a minute, and a bounded
number of them. When one is used up is decided by `limits`; how often, counted by its hits.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from fleetgate import log

EVERY_S: Final = 60.0
MAX_LINES: Final = 100
"""In any minute. A device chooses what its software is called: their names are not to fill the log."""

_log = log.get("accept.limits")


class LimitLog:
    """Of one edge."""

    def __init__(self) -> None:
        self._told_at: OrderedDict[tuple[str, str, tuple[str, ...]], float] = OrderedDict()  # in the order of time

    def reached(self, level: str, quantity: str, name: tuple[str, ...], now: float) -> None:
        """Somebody waits for what those of that name share: (tenant,), (tenant, software), (issuer,), or () for the
        gate. `now` is in monotonic seconds."""
        told = self._told_at
        while told and now - next(iter(told.values())) >= EVERY_S:
            told.popitem(last=False)
        limit = (level, quantity, name)
        if limit in told or len(told) >= MAX_LINES:
            return
        told[limit] = now
        fields = ("issuer",) if level == "issuer" else ("tenant", "software")
        _log.warning("limit_reached", limit=level, quantity=quantity, **dict(zip(fields, name, strict=False)))
