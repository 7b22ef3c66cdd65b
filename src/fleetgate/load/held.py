"""What is held of one device, and what became of it by each decision, for a person who looks at its case.

Decides the question only: which events a decision releases is decided by `control.releases`, what is still held by the
view `held_now` (schemas/clickhouse/010_release.sql).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from fleetgate.config import Config
from fleetgate.control.releases import Release
from fleetgate.load.ask import opened
from fleetgate.load.release import count_of


class Moved(Struct, frozen=True):
    """Events that this decision released: so many are in `events`, and so many wait for load to move them."""

    decision: str
    released: int
    waiting: int


class HeldEvents(Struct, frozen=True):
    """`held`: events that no decision released, and those that wait. `decisions` that gave back any, oldest first."""

    held: int
    decisions: list[Moved]


def held_events(config: Config, tenant: str, device_id: str, releases: Sequence[Release]) -> HeldEvents:
    """As ClickHouse has it now. Raises ClickHouseAway, ConfigError, CheckFailed."""
    with opened(config, offline=None) as clickhouse:
        [[held]] = clickhouse.rows(
            "SELECT count() FROM held_now WHERE tenant = {tenant:String} AND device_id = {device:String}",
            {"tenant": tenant, "device": device_id},
        )
        counts = [(release.decision, *count_of(clickhouse, release)) for release in releases]
    return HeldEvents(int(held), [Moved(decision, done, all_ - done) for decision, all_, done in counts])
