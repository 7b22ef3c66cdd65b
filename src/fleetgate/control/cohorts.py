"""Cohorts: devices that are in trouble together when what they have in common is.

Decides what a cohort is and how it is written; pure. Which of them a device is in, and what many of one in trouble at
once mean, is decided by the edge (`accept.breaker`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class CohortKind(StrEnum):
    TENANT = "tenant"
    SOFTWARE = "software"
    ISSUER = "issuer"


class Cohort(NamedTuple):
    """All devices of a tenant (`name` is empty), those of it that run one software version, or those whose certificate
    one CA issued, of whatever tenant (`tenant` is empty). `str()` says it within its tenant, and is read back by
    `cohort_of`."""

    kind: CohortKind
    tenant: str
    name: str

    def __str__(self) -> str:
        return "" if self.kind is CohortKind.TENANT else f"{self.kind} {self.name}"


def cohort_of(tenant: str, text: str) -> Cohort:
    """Raises ValueError."""
    kind, _, name = text.partition(" ")
    return Cohort(CohortKind(kind or CohortKind.TENANT), tenant, name)


class Mode(StrEnum):
    """What a person says of a cohort: devices of it go into quarantine as the breaker decides, never, or always."""

    AUTO = "auto"
    HOLD = "hold"
    OFF = "off"
