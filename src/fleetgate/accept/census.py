"""The census: which cohorts a device is in, and how many devices each has.

Decides that a cohort is whoever was seen in the last day, by the checkpoint: devices that are not in memory count, and
an edge that has just started knows as many as before. Who came since the last count is counted when it matters, where
that may make a cohort of too few to be one. What many of one in trouble mean is decided by `surge`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, assert_never

import trio

from fleetgate.accept.breaker import Breaker
from fleetgate.accept.known import KnownDevice
from fleetgate.clock import Clock
from fleetgate.control.cohorts import Cohort, CohortKind
from fleetgate.spool.checkpoint import Checkpoint

SEEN_MS: Final = 24 * 3_600_000  # in the last day: whoever drives at all
SHARE_OF_TIME: Final = 0.01
"""The checkpoint is counted again so seldom that it takes a hundredth of the time: a million devices take a second."""


class Census:
    """Tells `breaker` how many devices its cohorts have."""

    def __init__(self, checkpoint: Checkpoint, breaker: Breaker, clock: Clock) -> None:
        self._checkpoint = checkpoint
        self._breaker = breaker
        self._clock = clock
        self._due_s = -math.inf

    def count(self) -> None:
        """Takes as long as it takes: at a start. Raises SpoolError."""
        self._breaker.sizes = sizes(self._checkpoint.census(self._clock.now_ms() - SEEN_MS))

    async def count_if_due(self) -> None:
        """In a thread; called behind each checkpoint. Raises SpoolError."""
        began_s = self._clock.monotonic()
        if began_s >= self._due_s:
            await trio.to_thread.run_sync(self.count)
            now_s = self._clock.monotonic()
            self._due_s = now_s + (now_s - began_s) / SHARE_OF_TIME


def cohorts_of(known: KnownDevice) -> tuple[Cohort, ...]:
    """Of a device in trouble as of before that; as far as it is known, which the tenant always is."""
    return _cohorts(known.key[0], *(known.before_trouble or (known.software, known.issuer)))


def in_memory(devices: Iterable[KnownDevice], cohort: Cohort) -> int:
    """How many of these are in the cohort now. Of a million it takes a tenth of a second."""
    kind, tenant, name = cohort
    match kind:
        case CohortKind.TENANT:
            return sum(known.key[0] == tenant for known in devices)
        case CohortKind.SOFTWARE:
            return sum(known.software == name and known.key[0] == tenant for known in devices)
        case CohortKind.ISSUER:
            return sum(known.issuer == name for known in devices)
        case _:
            assert_never(kind)


def sizes(counted: Iterable[tuple[str, str, str, int]]) -> Mapping[Cohort, int]:
    """From (tenant, software, issuer, devices) of the checkpoint."""
    found: Counter[Cohort] = Counter()
    for tenant, software, issuer, devices in counted:
        for cohort in _cohorts(tenant, software, issuer):
            found[cohort] += devices
    return found


def _cohorts(tenant: str, software: str, issuer: str) -> tuple[Cohort, ...]:
    found = [Cohort(CohortKind.SOFTWARE, tenant, software)] if software else []
    if issuer:
        found.append(Cohort(CohortKind.ISSUER, "", issuer))
    return (*found, Cohort(CohortKind.TENANT, tenant, ""))
