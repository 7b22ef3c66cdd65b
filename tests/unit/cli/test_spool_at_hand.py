"""What `fleetgate verify segments` takes from the spool at hand: which segments are parked, and which load has next."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.segments import SpoolOnDisk, rows_body, sample

from fleetgate.cli.proof import _in_hand, _parked
from fleetgate.durable import replace_durably
from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.identity import Identity

NEW = "ab" * 16


@pytest.fixture
def spool(tmp_path: Path) -> SpoolOnDisk:
    """Two sealed segments."""
    made = SpoolOnDisk(tmp_path / "spool")
    for _ in range(2):
        made.message(rows_body(sample(0, s1=50.0)))
        made.seal()
    return made


def rename(spool: SpoolOnDisk) -> str:
    """Gives the spool a new identity, as a repair does; the former one."""
    former = spool.identity.hex()
    replace_durably(spool.directory / "identity", Identity(NEW, 0, [former]).packed())
    return former


def park(spool: SpoolOnDisk, number: int) -> Path:
    (spool.directory / "parked").mkdir(exist_ok=True)
    name = f"{number:020d}.seg"
    os.link(spool.directory / "segments" / name, spool.directory / "parked" / name)
    return spool.directory / "parked" / name


def test_the_first_sealed_segment_behind_the_cursor_is_in_hand(spool: SpoolOnDisk) -> None:
    """Without a cursor that is the first one of all."""
    own = spool.identity.hex()
    assert _in_hand(spool.directory) == {own: 1}
    write_cursor(spool.directory, Cursor(own, 1, "00" * 32))
    assert _in_hand(spool.directory) == {own: 2}


def test_where_all_is_loaded_no_number_is_in_hand(spool: SpoolOnDisk) -> None:
    """Not 0 either, which a row in ClickHouse may have."""
    write_cursor(spool.directory, Cursor(spool.identity.hex(), 2, "00" * 32))
    assert _in_hand(spool.directory) == {spool.identity.hex(): None}


def test_a_segment_of_the_former_identity_is_in_hand_as_such(spool: SpoolOnDisk) -> None:
    """Its rows bear the identity under which it was written."""
    former = rename(spool)
    assert _in_hand(spool.directory) == {NEW: None, former: 1}


def test_a_parked_segment_counts_for_the_identity_that_wrote_it(spool: SpoolOnDisk) -> None:
    """After a repair gave the spool a new one, it is parked under the former one as before."""
    former = rename(spool)
    park(spool, 1)
    assert _parked(spool.directory) == {(former, 1)}


def test_a_parked_segment_that_does_not_say_whose_it_is_counts_for_all(spool: SpoolOnDisk) -> None:
    """Its header is damaged."""
    former = rename(spool)
    kept = park(spool, 1)
    kept.write_bytes(b"x" + kept.read_bytes()[1:])
    assert _parked(spool.directory) == {(former, 1), (NEW, 1)}


def test_without_a_spool_nothing_is_known(tmp_path: Path) -> None:
    """On another machine than the gate's."""
    assert (_in_hand(tmp_path), _parked(tmp_path)) == ({}, frozenset())
