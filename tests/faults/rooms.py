"""Where the faults are: the modules that register theirs when they are imported, in the order of the report."""

from __future__ import annotations

from tests.faults import (
    answers,
    clients,
    clocks,
    credentials,
    disks,
    drains,
    kills,
    machines,
    outages,
    points,
    power_cuts,
    records,
    releases,
    replaced,
    rot,
)
from tests.faults.registry import FAULTS

ROOMS = (
    kills,
    points,
    power_cuts,
    answers,
    disks,
    rot,
    drains,
    machines,
    outages,
    clocks,
    records,
    releases,
    replaced,
    credentials,
    clients,
)

__all__ = ["FAULTS", "ROOMS"]
