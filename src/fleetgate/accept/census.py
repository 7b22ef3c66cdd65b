"""The census: which cohorts a device is in, and how many devices each has.

Decides that a cohort is whoever was seen in the last day, by the checkpoint: devices that are not in memory count, and
an edge that has just started knows as many as before. What many of one in trouble mean is decided by `surge`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from fleetgate.accept.fleet import KnownDevice
from fleetgate.control.cohorts import Cohort, CohortKind

SEEN_MS: Final = 24 * 3_600_000  # in the last day: whoever drives at all
SHARE_OF_TIME: Final = 0.01
"""The checkpoint is counted again so seldom that it takes a hundredth of the time: a million devices take a second."""


def cohorts_of(known: KnownDevice) -> tuple[Cohort, ...]:
    """As far as it is known; the tenant always is."""
    return _cohorts(known.key[0], known.software, known.issuer)


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
