"""The gate doubts its own clock by two signs, and trusts it again when they are gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from fleetgate.accept.timekeeping import Timekeeper


class HandClock:
    """Wall time and monotonic time, each set by the test."""

    def __init__(self) -> None:
        self.wall_ms, self.monotonic_s = 1_800_000_000_000, 1000.0

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.monotonic_s

    def pass_seconds(self, seconds: float) -> None:
        self.wall_ms += int(seconds * 1000)
        self.monotonic_s += seconds


def devices(heard: int, ahead: int, at_s: float) -> Any:
    return [
        SimpleNamespace(account=SimpleNamespace(used_at=at_s), ahead_at=at_s if i < ahead else float("-inf"))
        for i in range(heard)
    ]


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000, 6_000])
def test_a_step_of_the_clock_is_doubted_until_it_is_taken_back(step_ms: int) -> None:
    """A jump in either direction closes the gate; the same jump back opens it."""
    clock = HandClock()
    keeper = Timekeeper(clock)
    clock.pass_seconds(1)
    assert keeper.doubt([]) == ""
    clock.wall_ms += step_ms
    clock.pass_seconds(1)
    assert "jumped" in keeper.doubt([])
    clock.wall_ms -= step_ms
    assert keeper.doubt([]) == ""


def test_a_pause_between_two_looks_at_the_clock_is_not_a_jump() -> None:
    """A process that was stopped for ten seconds in the middle of the comparison does not doubt its clock."""

    class StoppedClock(HandClock):
        pause_s = 0.0

        def now_ms(self) -> int:
            found = super().now_ms()
            self.pass_seconds(self.pause_s)
            return found

    keeper = Timekeeper(clock := StoppedClock())
    clock.pause_s = 10.0
    assert keeper.doubt([]) == ""


def test_a_slowly_slewed_clock_is_not_a_jump() -> None:
    """An hour of correction by half a second a minute raises no doubt."""
    clock = HandClock()
    keeper = Timekeeper(clock)
    for _ in range(3600):
        clock.pass_seconds(1)
        clock.wall_ms += 8
        assert keeper.doubt([]) == ""


def test_most_of_many_devices_ahead_means_the_gate_is_behind() -> None:
    """More than half of at least 20 devices within five minutes; fewer devices or a smaller share are the devices'."""
    clock = HandClock()
    keeper = Timekeeper(clock)
    now_s = clock.monotonic()
    assert "11 of 20" in keeper.doubt(devices(20, 11, now_s))
    assert keeper.doubt(devices(20, 10, now_s)) == ""
    assert keeper.doubt(devices(19, 19, now_s)) == ""
    clock.pass_seconds(301)
    assert keeper.doubt(devices(20, 11, now_s)) == ""
