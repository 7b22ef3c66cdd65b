"""Samples reach the disk without anybody waiting, and a disk that fails costs samples and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.spools import SetClock
from tests.unit.evidence.conftest import sample
from tests.units import NOW

from fleetgate.config import Evidence
from fleetgate.errors import ControlAway
from fleetgate.evidence.keeper import ASIDE_DAYS, FORGET_SECONDS, HARMLESS_DAYS, QUEUE_BYTES, Keeper
from fleetgate.evidence.store import ASIDE, FILE, read_samples

DAY_MS = 24 * 3600 * 1000


class Bench:
    """A keeper that is stepped by hand. `harmless` is what control says, None when it is away."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.directory = directory / "evidence"
        self.clock = SetClock()
        self.harmless: list[tuple[str, str, int]] | None = []
        self.asked: list[tuple[int, int]] = []
        self.keeper = Keeper(self.directory, Evidence(**settings), 0, self.clock, self._cleared)

    def _cleared(self, since_ms: int, before_ms: int) -> Sequence[tuple[str, str, int]]:
        self.asked.append((since_ms, before_ms))
        if self.harmless is None:
            raise ControlAway("away")
        return self.harmless

    def kept(self) -> list[int]:
        return [kept.at_ms for kept in read_samples(self.directory, "acme", "car-7-tcu")]


def test_what_is_offered_is_written_when_it_ends(tmp_path: Path) -> None:
    """By its own thread, with the mode of its own file."""
    bench = Bench(tmp_path)
    with bench.keeper:
        bench.keeper.offer(sample())
    assert (bench.kept(), bench.keeper.kept, bench.keeper.lost, bench.keeper.failing) == ([NOW], 1, 0, "")


def test_the_queue_is_bounded_in_bytes(tmp_path: Path) -> None:
    """While the disk hangs: what is beyond is lost and counted."""
    bench = Bench(tmp_path)
    for _ in range(12):
        bench.keeper.offer(sample(raw=bytes(QUEUE_BYTES // 8)))
    bench.keeper.step()
    assert (bench.keeper.kept, bench.keeper.lost) == (8, 4)


def test_a_disk_that_fails_is_counted_and_tried_again(tmp_path: Path) -> None:
    """A file in the place of the directory, which somebody then takes away."""
    bench = Bench(tmp_path)
    bench.directory.write_text("in the way")
    bench.keeper.offer(sample())
    bench.keeper.step()
    assert (bench.keeper.lost, "evidence" in bench.keeper.failing) == (1, True)
    bench.directory.unlink()
    bench.keeper.offer(sample())
    bench.keeper.step()
    assert (bench.keeper.kept, bench.keeper.failing, bench.kept()) == (1, "", [NOW])


ROTTEN = {
    "no file of SQLite's": lambda path: path.write_bytes(b"rot" * 4096),
    "cut": lambda path: os.truncate(path, 8192),
}


@pytest.mark.parametrize("rot", ROTTEN.values(), ids=ROTTEN.keys())
def test_a_file_that_is_damaged_is_set_aside_and_a_new_one_begun(tmp_path: Path, rot: Callable[[Path], object]) -> None:
    """Nobody has to act for it; what was to be written then is lost, and said. One damaged file is kept, for a week."""
    bench = Bench(tmp_path)
    for number in range(2):
        for _ in range(30):
            bench.keeper.offer(sample())
        bench.keeper.step()
        rot(bench.directory / FILE)
        (bench.directory / f"{FILE}-journal").write_bytes(b"of the damaged file")
        bench.keeper.offer(sample())
        bench.keeper.step()
        assert (bench.keeper.lost, bool(bench.keeper.failing)) == (number + 1, True)
    bench.keeper.offer(sample())
    bench.keeper.step()
    assert (bench.keeper.failing, bench.kept()) == ("", [NOW])
    assert sorted(path.name for path in bench.directory.iterdir() if "journal" not in path.name) == [FILE, ASIDE]
    bench.clock.ms += ASIDE_DAYS * DAY_MS + 1000
    bench.keeper.step()
    assert not (bench.directory / ASIDE).exists()


def test_the_last_of_a_disk_is_left_to_telemetry(tmp_path: Path) -> None:
    """Where spool and evidence share one."""
    bench = Bench(tmp_path)
    keeper = Keeper(bench.directory, Evidence(), 2**62, bench.clock, bench._cleared)
    keeper.offer(sample())
    keeper.step()
    assert (keeper.lost, "spool.min_free_bytes" in keeper.failing) == (1, True)


def test_what_was_written_is_not_lost_where_forgetting_fails(tmp_path: Path) -> None:
    """One fate each, and somebody hears of the rest."""
    bench = Bench(tmp_path)
    bench.harmless = [()]  # type: ignore[list-item]  # what control never says
    bench.keeper.offer(sample())
    bench.keeper.step()
    assert (bench.keeper.kept, bench.keeper.lost, bench.keeper.failing) == (1, 0, "TypeError")


def test_samples_are_forgotten_by_age_and_by_decision_once_an_hour(tmp_path: Path) -> None:
    """A week after the decision; by age also while control is away. Of decisions about what is too old nobody asks."""
    bench = Bench(tmp_path, max_days=30)
    for days in (29, 8, 1):
        bench.keeper.offer(sample(at_ms=NOW - days * DAY_MS))
    bench.keeper.step()
    assert bench.asked == [(NOW - 30 * DAY_MS, NOW - HARMLESS_DAYS * DAY_MS)]
    bench.harmless = [("acme", "car-7-tcu", NOW - 8 * DAY_MS)]
    bench.keeper.step()
    assert len(bench.kept()) == 3
    bench.clock.ms += int(FORGET_SECONDS * 1000)
    bench.keeper.step()
    assert bench.kept() == [NOW - DAY_MS]
    bench.harmless = None
    bench.clock.ms += 30 * DAY_MS
    bench.keeper.step()
    assert bench.kept() == []
