"""The virtual clock: one for all processes of a scenario, and refused in a production start."""

from __future__ import annotations

import time

import pytest

from fleetgate.clock import TEST_CLOCK_VARIABLE, ScaledClock, SystemClock, clock_from_environment
from fleetgate.errors import ConfigError


def test_processes_given_the_same_origin_agree_whenever_they_started() -> None:
    """A clock made later by the same three numbers shows the same time, and not the start again."""
    origin_s = time.monotonic() - 3.0
    first, later = ScaledClock(1_000_000, 100.0, origin_s), ScaledClock(1_000_000, 100.0, origin_s)
    before_ms, now_ms, after_ms = first.now_ms(), later.now_ms(), first.now_ms()
    assert 1_000_000 + 300_000 <= before_ms <= now_ms <= after_ms
    assert first.monotonic() >= origin_s + 300.0


def test_the_variable_names_start_speed_and_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """`<unix ms>,<speed>,<monotonic s>`; without the last the clock begins now."""
    monkeypatch.setenv(TEST_CLOCK_VARIABLE, f"5000,10,{time.monotonic() - 2.0}")
    assert clock_from_environment(testing=True).now_ms() >= 25_000
    monkeypatch.setenv(TEST_CLOCK_VARIABLE, "5000,10")
    began_s = time.monotonic()
    shown_ms = clock_from_environment(testing=True).now_ms()
    assert 5_000 <= shown_ms <= 5_000 + (time.monotonic() - began_s) * 10_000


@pytest.mark.parametrize("setting", ["soon,2", "5000,fast", "5000,2,then"])
def test_a_setting_that_is_no_clock_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """The message says how the variable is written."""
    monkeypatch.setenv(TEST_CLOCK_VARIABLE, setting)
    with pytest.raises(ConfigError, match="monotonic s"):
        clock_from_environment(testing=True)


def test_a_production_start_refuses_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody chooses a gate's time from outside; without the variable it is the machine's clock."""
    monkeypatch.setenv(TEST_CLOCK_VARIABLE, "now,1")
    with pytest.raises(ConfigError, match="testing = true"):
        clock_from_environment(testing=False)
    monkeypatch.delenv(TEST_CLOCK_VARIABLE)
    assert isinstance(clock_from_environment(testing=False), SystemClock)
