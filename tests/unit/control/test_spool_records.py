"""What control remembers of spools, so that an edge knows a replaced disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.schema import DropTable

from fleetgate.control.schema import spools
from fleetgate.control.spools import begin_spool, known_spools, note_loaded
from fleetgate.control.store import Store
from fleetgate.spool.home import Known

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

ONE, TWO = "a1" * 16, "b2" * 16


def test_a_spool_is_known_from_its_begin_on_with_the_last_segment_told(gate: Gate) -> None:
    """Positions and times only grow, and neither makes a change that edges poll."""
    assert known_spools(gate.store, Known) == []
    begin_spool(gate.store, ONE, [])
    for segment, received_ms in ((3, 3000), (9, 2500), (4, 0)):
        note_loaded(gate.store, ONE, segment, received_ms)
    begin_spool(gate.store, ONE, [])
    assert (known_spools(gate.store, Known), gate.store.revision()) == ([Known(ONE, 9, False, 3000)], 0)


def test_a_spool_that_names_former_ones_takes_their_place(gate: Gate) -> None:
    """They stay on record as replaced."""
    begin_spool(gate.store, ONE, [])
    begin_spool(gate.store, TWO, [ONE])
    assert {one.spool: one.replaced for one in known_spools(gate.store, Known) or []} == {ONE: True, TWO: False}


def test_a_spool_from_before_these_records_is_known_once_load_tells(gate: Gate) -> None:
    """Its first segment was loaded by an earlier fleetgate."""
    note_loaded(gate.store, ONE, 5, 1000)
    assert known_spools(gate.store, Known) == [Known(ONE, 5, False, 1000)]


def test_records_that_nobody_wrote_to_since_say_that_they_cannot_know(gate: Gate) -> None:
    """The table comes with the first command that writes."""
    with gate.store.write("test") as write:
        write.execute(DropTable(spools))
    with Store.open(gate.config, gate.clock) as reader:
        assert known_spools(reader, Known) is None
        Store.open(gate.config, gate.clock, write=True).close()
        assert known_spools(reader, Known) == []
