"""What load found out about devices reaches their edge once, and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from fleetgate.control.audit import list_audit
from fleetgate.control.quarantine import decide
from fleetgate.control.states import Classification, Decision
from fleetgate.control.store import SUSPICION
from fleetgate.control.suspicions import (
    KEPT_MS,
    NOTED_AT_ONCE,
    Suspicion,
    decided_since,
    note_suspicions,
    suspicions_of,
)

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

SPOOL = "ab" * 16


def suspicion(device_id: str = "car-tcu", signal: str = "implausible_data", edge_id: str = "edge-1") -> Suspicion:
    return Suspicion("acme", device_id, edge_id, signal, 3, 1_000, {"signal": "Vehicle.Speed", "value": 900.5})


def told(gate: Gate, edge_id: str = "edge-1") -> list[Suspicion]:
    """What an edge reads that polls from the beginning."""
    changes = gate.store.changes_from(0, 100)
    return suspicions_of(gate.store, [change.revision for change in changes if change.kind == SUSPICION], edge_id)


def test_an_edge_reads_what_concerns_it(gate: Gate) -> None:
    """Whole, and by one change however many they are; another edge's are none of its business."""
    found = [suspicion(), suspicion(signal="impossible_travel"), suspicion("bus-tcu"), suspicion(edge_id="edge-2")]
    assert note_suspicions(gate.store, SPOOL, 1, found[:3]) == 3
    assert note_suspicions(gate.store, SPOOL, 2, found[3:]) == 1
    assert (told(gate), told(gate, "edge-2"), gate.store.revision()) == (found[:3], found[3:], 2)


def test_what_waited_while_control_was_away_is_counted_together(gate: Gate) -> None:
    """The episodes of a device are noted with one segment then: none is lost, and the detail is that of the last."""
    episodes = [msgspec.structs.replace(suspicion(), at_ms=at_ms, detail={"at": at_ms}) for at_ms in (1, 3, 2)]
    assert note_suspicions(gate.store, SPOOL, 1, [*episodes, suspicion("bus-tcu")]) == 2
    assert told(gate) == [msgspec.structs.replace(episodes[1], count=9), suspicion("bus-tcu")]


def test_what_was_noted_is_not_noted_again(gate: Gate) -> None:
    """Load repeats a segment after a crash: only what is new of it is told."""
    note_suspicions(gate.store, SPOOL, 1, [suspicion()])
    again = note_suspicions(gate.store, SPOOL, 1, [suspicion(), suspicion("bus-tcu")])
    assert (again, note_suspicions(gate.store, SPOOL, 1, [suspicion()]), len(told(gate))) == (1, 0, 2)
    assert gate.store.revision() == 2


def test_a_suspicion_is_no_decision(gate: Gate) -> None:
    """The audit tells of decisions; what was only seen has no line there."""
    note_suspicions(gate.store, SPOOL, 1, [suspicion()])
    assert list_audit(gate.store, None, None, 10) == []


def test_suspicions_are_forgotten_after_a_day(gate: Gate) -> None:
    """With the next one, so that the table does not grow for ever."""
    note_suspicions(gate.store, SPOOL, 1, [suspicion()])
    gate.clock.ms += KEPT_MS + 1
    note_suspicions(gate.store, SPOOL, 2, [suspicion("bus-tcu")])
    assert [one.device_id for one in told(gate)] == ["bus-tcu"]


def test_load_reads_when_a_person_decided_last(gate: Gate) -> None:
    """Of each device with a decision since then the newest."""
    for vehicle in ("car", "bus"):
        gate.enrol(vehicle)
    gate.clock.ms += 5_000
    for vehicle in ("car", "bus"):
        decide(gate.store, "acme", f"{vehicle}-tcu", Decision.BAN, Classification.CONFIRMED, "alice", "a clone")
    first_ms = gate.clock.ms
    gate.clock.ms += 5_000
    decide(gate.store, "acme", "bus-tcu", Decision.RELEASE, Classification.BENIGN, "alice", "it was ours")
    last = {("acme", "car-tcu"): first_ms, ("acme", "bus-tcu"): first_ms + 5_000}
    assert decided_since(gate.store, first_ms) == last
    assert decided_since(gate.store, first_ms + 1) == {("acme", "bus-tcu"): first_ms + 5_000}
    assert decided_since(gate.store, first_ms + 5_001) == {}


@pytest.mark.parametrize("found", [[suspicion(signal="bad_mac")], [suspicion()] * (NOTED_AT_ONCE + 1)])
def test_load_raises_its_own_signals_and_few_at_once(gate: Gate, found: list[Suspicion]) -> None:
    """It cannot score a device for what only the edge has seen, nor hold up people's decisions with a flood."""
    with pytest.raises(ValueError, match="load raises"):
        note_suspicions(gate.store, SPOOL, 1, found)
    assert told(gate) == []
