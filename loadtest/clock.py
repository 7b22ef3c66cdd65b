"""Decides what time it is for the generator: the wall clock as it was when this program began, carried on by the
monotonic one. A step of the machine's clock during a run makes no message late, early or due."""

from __future__ import annotations

from fleetsim.clock import Clock

_clock = Clock()  # of a process that locust forked, that of its parent


def now_s() -> float:
    """Unix seconds."""
    return _clock.now_ms() / 1000
