"""Locks between processes: who has one, and what is left of a try that failed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleetgate.lock import Taken, hold


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("flags", [os.O_RDWR | os.O_CREAT, os.O_RDONLY | os.O_DIRECTORY], ids=["file", "directory"])
def test_one_holds_it_until_it_is_closed(tmp_path: Path, flags: int) -> None:
    """Whoever comes second is told so, and keeps nothing open."""
    path = tmp_path if flags & os.O_DIRECTORY else tmp_path / "lock"
    first = hold(path, flags)
    before = descriptors()
    with pytest.raises(Taken):
        hold(path, flags)
    assert descriptors() == before
    os.close(first)
    os.close(hold(path, flags))
