"""Which numbers of segments load remembers to have gone past, and until when."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from fleetgate.clock import SystemClock
from fleetgate.errors import SpoolError
from fleetgate.load.lag import LagCollector
from fleetgate.load.skipped import Skipped

METRIC = "fleetgate_load_missing_segments"


@pytest.fixture
def registry(tmp_path: Path) -> CollectorRegistry:
    """Of a load that was started now."""
    found = CollectorRegistry()
    found.register(LagCollector(tmp_path, SystemClock()))
    return found


def test_a_restart_forgets_nothing_and_only_what_came_is_taken_off(tmp_path: Path, registry: CollectorRegistry) -> None:
    """The figure is the file's, and not the process's."""
    Skipped(tmp_path).add(6, 8)
    Skipped(tmp_path).add(20, 20)
    assert registry.get_sample_value(METRIC) == 4
    for number in (7, 9):
        Skipped(tmp_path).had(number)
    assert registry.get_sample_value(METRIC) == 3
    assert (tmp_path / "skipped.json").read_text() == "[[6,6],[8,8],[20,20]]"
    for number in (6, 8, 20):
        Skipped(tmp_path).had(number)
    assert registry.get_sample_value(METRIC) == 0


def test_numbers_are_counted_once_however_often_they_are_skipped(tmp_path: Path) -> None:
    """A crash before the cursor was written, and an older cursor, lead past the same again."""
    for first, last in ((6, 8), (6, 8), (4, 7), (9, 10)):
        Skipped(tmp_path).add(first, last)
    assert (tmp_path / "skipped.json").read_text() == "[[4,10]]"


def test_a_person_gives_them_up_by_moving_the_file_away(tmp_path: Path, registry: CollectorRegistry) -> None:
    """Of a load that runs, too."""
    skipped = Skipped(tmp_path)
    skipped.add(6, 8)
    (tmp_path / "skipped.json").rename(tmp_path / "given-up.json")
    assert registry.get_sample_value(METRIC) == 0
    skipped.add(12, 12)
    assert registry.get_sample_value(METRIC) == 1


@pytest.mark.parametrize("content", [b"", b"[[6", b"\xff", b'{"a":1}', b"[[6]]"])
def test_a_damaged_file_is_not_taken_for_a_good_state(
    tmp_path: Path, registry: CollectorRegistry, content: bytes
) -> None:
    """Something is missing, and nobody can say what: that stands until a person has looked."""
    (tmp_path / "skipped.json").write_bytes(content)
    assert registry.get_sample_value(METRIC) == 1
    Skipped(tmp_path).add(6, 8)
    Skipped(tmp_path).had(7)
    assert registry.get_sample_value(METRIC) == 3


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, registry: CollectorRegistry) -> None:
    """Load waits for the disk then, as for any other file of the spool; the other metrics go on."""
    (tmp_path / "skipped.json").mkdir()
    assert registry.get_sample_value(METRIC) == 1
    with pytest.raises(SpoolError, match=r"cannot read .*skipped\.json"):
        Skipped(tmp_path).count()
