"""A spool's disk that was replaced, by an empty one or an older copy, is known by what others remember of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.spools import OpenSpool, SetClock
from tests.units import NOW

from fleetgate.errors import SpoolError
from fleetgate.spool.home import Known, Spool, Witness

FORMER = "ab" * 16


def opened(directory: Path, witness: Witness) -> Spool:
    spool = Spool(directory, SetClock(), os.urandom, witness=witness)
    spool.close()
    return spool


def test_an_empty_disk_in_the_place_of_another_gets_a_fence(tmp_path: Path) -> None:
    """A minute ahead, as a sender's clock may be; it says whose place it took, and keeps both over a restart."""
    first = opened(tmp_path, lambda: [Known("cd" * 16, 7, True), Known(FORMER, 3, False)]).identity
    assert (first.fence_ms, first.former) == (NOW + 60_000, [FORMER])
    assert opened(tmp_path, list).identity == first


def test_a_clock_that_is_behind_does_not_move_the_fence(tmp_path: Path) -> None:
    """A minute ahead of what was last received: by the new machine's clock alone it would lie before that."""
    known = [Known(FORMER, 3, False, NOW + 3_600_000), Known("cd" * 16, 7, True, NOW)]
    assert opened(tmp_path, lambda: known).identity.fence_ms == NOW + 3_660_000


def test_the_first_spool_of_a_gate_has_no_fence(tmp_path: Path) -> None:
    """Nobody knows of one before: what vehicles kept from before its first start is welcome."""
    assert opened(tmp_path, list).identity.fence_ms == 0


def test_where_nobody_can_know_an_empty_disk_gets_a_fence(tmp_path: Path) -> None:
    """Records of a former fleetgate say nothing of spools."""
    assert opened(tmp_path, lambda: None).identity.fence_ms == NOW + 60_000


def test_an_older_copy_is_not_opened(tmp_path: Path) -> None:
    """More of it was loaded than is there: its next numbers were given already."""
    spool = OpenSpool(tmp_path, SetClock())
    spool.write(3)
    spool.writer.seal()
    identity = spool.home.identity.spool
    spool.leave()
    opened(tmp_path, lambda: [Known(identity, 1, False)])
    with pytest.raises(SpoolError, match=r"older copy.*segment 2 was loaded.*one here is 1.*--restored"):
        opened(tmp_path, lambda: [Known(identity, 2, False)])


def test_a_spool_that_another_took_the_place_of_is_not_opened(tmp_path: Path) -> None:
    """However whole it is: it does not know what the other one received."""
    identity = opened(tmp_path, list).identity.spool
    with pytest.raises(SpoolError, match=r"another took its place.*--restored"):
        opened(tmp_path, lambda: [Known(identity, 0, True)])
