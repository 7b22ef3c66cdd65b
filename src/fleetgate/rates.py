"""A rate limit as a person writes it: `100/s, 2000/min`.

COUNT/[N]UNIT: so many in N (one, where it is left out) seconds, minutes, hours or days. Several are joined by commas,
and all of them hold: a short one bounds the burst, a long one what is sustained. Decides what the text means; whom it
limits, and what becomes of what is above it, is decided by those who count.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

HOW: Final = "write COUNT/UNIT, as in 100/s, 2000/min, 50/10s or 9/day"

UNITS: Final = {"s": 1, "min": 60, "h": 3600, "day": 86_400}

_RATE: Final = re.compile(rf"([1-9][0-9]{{0,11}})/([1-9][0-9]{{0,3}})?({'|'.join(UNITS)})")


class Rate(NamedTuple):
    """`most` at once, and as many more in each `seconds`."""

    most: int
    seconds: float


def parse_rates(text: str) -> tuple[Rate, ...]:
    """The rates in `text`; none, where it is empty. Raises ValueError with a sentence for whoever wrote it."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(parts):
        raise ValueError(f"{text[:40]!r} has a comma with no rate behind or before it: {HOW}")
    return tuple(map(_rate, parts))


def _rate(text: str) -> Rate:
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no rate: {HOW}")
    return Rate(int(found[1]), float(int(found[2] or 1) * UNITS[found[3]]))
