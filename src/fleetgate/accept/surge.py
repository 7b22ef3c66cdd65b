"""Surges: how many devices of a cohort are in one kind of trouble at the same time, and from when on that is a surge.

Decides the thresholds. Counted are distinct devices of the last five minutes; one device alone is never a surge,
however often it comes. What follows from a surge is decided by `breaker`, and for connections by `issuertrouble`. Pure.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

from fleetgate.spool.format import AlertRecord

WINDOW_MS: Final = 5 * 60_000
CALM_MS: Final = 15 * 60_000  # three windows: a release that rolls out in waves is one trouble
MIN_COHORT: Final = 50
MIN_DEVICES: Final = 20
MIN_SHARE: Final = 0.05
"""20 devices are 40 % of the smallest cohort and 5 % of one of 400: fewer may be a handful of tampered units."""

Key = tuple[str, str]


def limit_of(size: int) -> float:
    """So many devices of a cohort of that size are a surge; infinitely many of one that is too small to have any."""
    return max(MIN_DEVICES, math.ceil(size * MIN_SHARE)) if size >= MIN_COHORT else math.inf


def alert_key(edge_id: str, tenant: str, kind: str, cohort: str) -> str:
    """Which of all alerts it is, as the watch writes its own: tenant and cohort may be empty, the signal always is."""
    return f"edge {edge_id} | {tenant} | {kind} | {cohort} | "


def limit_at_opening(record: AlertRecord) -> float:
    """What a surge was when this alert was opened, by the size that it tells of."""
    size = record.detail.get("size")
    return limit_of(int(size)) if isinstance(size, int | float) else math.inf


class Window:
    """Devices in trouble in the last five minutes, each with the latest word for it."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: dict[Key, tuple[int, str]] = {}  # in the order of time

    def note(self, key: Key, word: str, now: int) -> None:
        self._latest.pop(key, None)
        self._latest[key] = (now, word)

    def forget(self, key: Key) -> None:
        self._latest.pop(key, None)

    def devices(self, now: int) -> list[Key]:
        self._prune(now)
        return list(self._latest)

    def count(self, now: int) -> int:
        self._prune(now)
        return len(self._latest)

    def words(self, now: int) -> Counter[str]:
        self._prune(now)
        return Counter(word for _, word in self._latest.values())

    def _prune(self, now: int) -> None:
        while self._latest:
            oldest = next(iter(self._latest))
            if now - self._latest[oldest][0] < WINDOW_MS:
                return
            del self._latest[oldest]
