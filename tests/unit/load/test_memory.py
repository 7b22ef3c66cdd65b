"""When freed memory goes back to the system."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from fleetgate.errors import ClickHouseAway
from fleetgate.load import memory
from fleetgate.load.clickhouse import Refused


@pytest.mark.parametrize(("bound", "purged"), [(0, 1), (2**50, 0)])
def test_memory_is_given_back_above_the_bound_only(monkeypatch: pytest.MonkeyPatch, bound: int, purged: int) -> None:
    """A small process keeps its pages, a large one asks every allocator, ClickHouse's too."""
    purges: list[None] = []
    monkeypatch.setattr(memory, "RELEASE_ABOVE_BYTES", bound)
    memory.release(lambda: purges.append(None))
    assert len(purges) == purged


def test_what_is_resident_is_read_in_bytes() -> None:
    """A Python with Arrow has some tens of MiB, and no test machine a TiB."""
    assert 2**24 < memory.resident_bytes() < 2**40


def test_a_purge_that_fails_is_said_once_and_fails_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The insert before it succeeded: load must not think that it did not."""

    def fail() -> None:
        raise errors.pop()

    errors = [ClickHouseAway("busy"), Refused(117, "never")]
    monkeypatch.setattr(memory, "RELEASE_ABOVE_BYTES", 0)
    monkeypatch.setattr(memory, "_said", False)
    with capture_logs() as logs:
        memory.release(fail)
        memory.release(fail)
    assert not errors
    assert [(entry["log_level"], entry["error"]) for entry in logs] == [("warning", "never")]
