"""Before the judge: the bucket of a device, and the room of the gate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.spools import OpenSpool, SetClock

from fleetgate.accept.admission import Bucket, Room
from fleetgate.config import Spool as SpoolSettings

RATE, BURST = 10.0, 100.0


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[OpenSpool]:
    opened = OpenSpool(tmp_path, SetClock())
    yield opened
    opened.close()


def test_a_burst_passes_at_once_and_no_more() -> None:
    """100 messages of a bucket of 100, then the time until there is one again."""
    bucket = Bucket(RATE, BURST)
    passed = [bucket.take(1, 0.0) for _ in range(101)]
    assert passed[:100] == [0.0] * 100
    assert passed[100] == pytest.approx(0.1)


def test_a_batch_may_overdraw_the_bucket_and_pays_for_it() -> None:
    """It passes whole while the bucket is above zero; the debt is paid before the next one passes."""
    bucket = Bucket(RATE, BURST)
    bucket.take(99, 0.0)
    assert bucket.take(500, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(50.0)
    assert (bucket.take(1, 49.9) > 0, bucket.take(1, 50.1)) == (True, 0.0)


def test_waiting_as_long_as_told_is_enough() -> None:
    """Whatever the bucket says, a device that waits that long may send."""
    bucket, now = Bucket(0.7, 3), 0.0
    for _ in range(50):
        wait = bucket.take(2, now)
        now += wait
        assert not wait or not bucket.take(2, now)


def test_a_quiet_device_saves_no_more_than_a_burst() -> None:
    """A day of silence does not allow a flood."""
    bucket = Bucket(RATE, BURST)
    bucket.take(100, 0.0)
    bucket.take(100, 86_400.0)
    assert bucket.take(1, 86_400.0) > 0


def test_refused_tries_cost_nothing() -> None:
    """A device that keeps trying is not kept out by its tries."""
    bucket = Bucket(RATE, 1)
    bucket.take(1, 0.0)
    for step in range(9):
        bucket.take(1, step / 100)
    assert bucket.take(1, 0.2) == 0.0


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
    room = Room(spool.home, settings)
    room.look(doubt)
    assert (room.open, why in room.why) == (not why, True)


def test_a_draining_gate_stays_closed(spool: OpenSpool) -> None:
    """A later look at the disk does not open it again."""
    room = Room(spool.home, SpoolSettings(min_free_bytes=0))
    room.drain()
    room.look("")
    assert (room.open, room.why) == (False, "draining")


def test_a_change_is_told_once(spool: OpenSpool) -> None:
    """Closing and opening each call the loop once, however often it is looked at."""
    changes: list[bool] = []
    room = Room(spool.home, SpoolSettings(min_free_bytes=0))
    room.on_change = lambda: changes.append(room.open)
    for doubt in ("", "doubt", "doubt", "another doubt", "", ""):
        room.look(doubt)
    assert changes == [False, True]
