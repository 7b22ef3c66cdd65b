"""A bucket: what passes at once, and how long one waits."""

from __future__ import annotations

import pytest

from fleetgate.bucket import Bucket
from fleetgate.rates import Rate

RATE = Rate(100, 10.0)


def test_a_burst_passes_at_once_and_no_more() -> None:
    """100 messages of a bucket of 100, then the time until there is one again."""
    bucket = Bucket(RATE)
    passed = [bucket.take(1, 0.0) for _ in range(101)]
    assert passed[:100] == [0.0] * 100
    assert passed[100] == pytest.approx(0.101)


def test_a_batch_may_overdraw_the_bucket_and_pays_for_it() -> None:
    """It passes whole while one is left; the debt is paid before the next one passes."""
    bucket = Bucket(RATE)
    bucket.take(99, 0.0)
    assert bucket.take(500, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(50.001)
    assert (bucket.take(1, 49.9) > 0, bucket.take(1, 50.01)) == (True, 0.0)


def test_waiting_as_long_as_told_is_enough() -> None:
    """Whatever the bucket says, a device that waits that long may send."""
    bucket, now = Bucket(Rate(3, 4.3)), 0.0
    for _ in range(50):
        wait = bucket.take(2, now)
        now += wait
        assert not wait or not bucket.take(2, now)


def test_a_quiet_device_saves_no_more_than_a_burst() -> None:
    """A day of silence does not allow a flood."""
    bucket = Bucket(RATE)
    bucket.take(100, 0.0)
    bucket.take(100, 86_400.0)
    assert bucket.take(1, 86_400.0) > 0


def test_refused_tries_cost_nothing() -> None:
    """A device that keeps trying is not kept out by its tries."""
    bucket = Bucket(Rate(1, 0.1))
    bucket.take(1, 0.0)
    for step in range(9):
        bucket.take(1, step / 100)
    assert bucket.take(1, 0.2) == 0.0
