"""The room of the gate: what happens at each threshold of the spool's limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.spools import OpenSpool, SetClock

from fleetgate.accept.room import PACE_SECONDS, RESUME_MARGIN, WARN_SHARE, Room
from fleetgate.config import Spool as SpoolSettings

MIB = 1024 * 1024


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[OpenSpool]:
    opened = OpenSpool(tmp_path, SetClock())
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("settings", "doubt", "why"),
    [
        (SpoolSettings(min_free_bytes=0), "", ""),
        (SpoolSettings(min_free_bytes=2**62), "", "spool.min_free_bytes"),
        (SpoolSettings(min_free_bytes=0, max_bytes=1), "", "spool.max_bytes"),
        (SpoolSettings(min_free_bytes=0), "the clock stepped", "the clock stepped"),
    ],
    ids=["room", "disk nearly full", "spool full", "clock in doubt"],
)
def test_the_room_is_open_while_the_gate_can_store(
    spool: OpenSpool, settings: SpoolSettings, doubt: str, why: str
) -> None:
    """Else it is closed, and says which setting closed it."""
    spool.write(1)
    room = Room(spool.home, settings, spool.clock)
    room.look(doubt)
    assert (room.open, why in room.why) == (not why, True)


def test_a_draining_gate_stays_closed(spool: OpenSpool) -> None:
    """A later look at the disk does not open it again."""
    room = Room(spool.home, SpoolSettings(min_free_bytes=0), spool.clock)
    room.drain()
    room.look("")
    assert (room.open, room.why) == (False, "draining")


def test_a_change_is_told_once(spool: OpenSpool) -> None:
    """Closing and opening each call the loop once, however often it is looked at."""
    changes: list[bool] = []
    room = Room(spool.home, SpoolSettings(min_free_bytes=0), spool.clock)
    room.on_change = lambda: changes.append(room.open)
    for doubt in ("", "doubt", "doubt", "another doubt", "", ""):
        room.look(doubt)
    assert changes == [False, True]


class Disk:
    """A spool whose sizes are what a test says they are: a disk cannot be filled to the byte."""

    def __init__(self, held: int, free: int) -> None:
        self.total_bytes = held
        self.free = free
        self.writer = self

    def free_bytes(self) -> int:
        return self.free


def room_on(disk: Disk, clock: SetClock | None = None, **settings: int) -> Room:
    limits = {"max_bytes": 1000 * MIB, "min_free_bytes": 100 * MIB} | settings
    return Room(disk, SpoolSettings(**limits), clock or SetClock())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("held", "free", "share"),
    [
        (0, 10_000, 0.01),
        (500, 10_000, 0.5),
        (300, 200, 0.75),
        (1, 110, 100 / 110),
        (1000, 10_000, 1.0),
        (1, 100, 1.0),
    ],
    ids=["empty", "half of max_bytes", "its disk is the limit", "others fill the disk", "max_bytes", "the floor"],
)
def test_how_full_it_is_tells_the_nearer_limit(held: int, free: int, share: float) -> None:
    """Of its own size or of the disk, whichever leaves less."""
    room = room_on(Disk(held * MIB, free * MIB))
    room.look("")
    assert room.full_share == pytest.approx(share, abs=1e-9)


def test_it_warns_once_on_the_way_up_and_says_when_there_is_room_again() -> None:
    """Not at each look, and not at each segment that comes and goes at the threshold."""
    disk = Disk(0, 10_000 * MIB)
    room = room_on(disk)
    with capture_logs() as logged:
        for percent in (10, 74, 76, 74, 76, 90, 71, 69, 74, 76):
            disk.total_bytes = percent * 10 * MIB
            room.look("")
    events = [entry["event"] for entry in logged]
    assert events == ["spool_fills", "spool_has_room_again", "spool_fills"]
    assert (room.open, room.full_share > WARN_SHARE) == (True, True)


@pytest.mark.parametrize("limit", ["max_bytes", "min_free_bytes"])
def test_it_opens_again_with_a_margin(limit: str) -> None:
    """Not at the first deleted segment: the door would go to and fro, and the fleet with it."""
    disk = Disk(500 * MIB, 500 * MIB)
    room = room_on(disk)
    opened = []
    for over in (-1, 1, 0, -1, -(RESUME_MARGIN * 100) + 1, -(RESUME_MARGIN * 100) - 1, -1, 1):  # percent of the limit
        if limit == "max_bytes":
            disk.total_bytes = int(1000 * MIB * (1 + over / 100))
        else:
            disk.free = int(100 * MIB * (1 - over / 100))
        room.look("")
        opened.append(room.open)
    assert opened == [True, False, False, False, False, True, True, False]


def test_time_until_full_follows_the_pace_of_the_last_minutes() -> None:
    """Unknown at first; while nothing is loaded the rest divided by the pace; endless once it shrinks."""
    clock, disk = SetClock(), Disk(0, 10_000 * MIB)
    room = room_on(disk, clock)
    seen = []
    for second in range(400):
        disk.total_bytes = second * MIB
        room.look("")
        seen.append(room.full_seconds)
        clock.ms += 1000
    assert math.isinf(seen[29])
    assert seen[60] == pytest.approx(940)
    assert seen[399] == pytest.approx(601)
    for _ in range(int(PACE_SECONDS)):
        disk.total_bytes -= 2 * MIB
        room.look("")
        clock.ms += 1000
    assert math.isinf(room.full_seconds)
    disk.total_bytes = 1001 * MIB
    room.look("")
    assert room.full_seconds == 0


def test_a_saw_tooth_is_not_taken_for_an_outage() -> None:
    """A working gate writes 20 MiB a second and deletes it every 10: the time until full stays far from an alert."""
    clock, disk = SetClock(), Disk(0, 100_000 * MIB)
    room = room_on(disk, clock, max_bytes=60_000 * MIB)
    least = math.inf
    for second in range(600):
        disk.total_bytes = (second % 10 + 1) * 20 * MIB
        room.look("")
        least = min(least, room.full_seconds)
        clock.ms += 1000
    assert least > 3600
