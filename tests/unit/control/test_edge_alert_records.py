"""What edges tell of cohorts and CAs: in the records, and where it is a decision in the audit, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleetgate.control.audit import list_audit
from fleetgate.control.edgealerts import Said, alert_id, close_alert, closings_since, list_alerts, note_alert
from fleetgate.errors import ConfigError, Conflict, NotFound

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate


def note(gate: Gate, state: str, at_ms: int, kind: str = "breaker") -> bool:
    key, cohort = f"{kind} edge-1", "software 2026.45"
    said = Said(key=key, state=state, at_ms=at_ms, kind=kind, tenant="acme", cohort=cohort, detail={"vehicles": 20})
    return note_alert(gate.store, "load", said)


def test_each_word_is_taken_once(gate: Gate) -> None:
    """Load repeats segments after a crash, and old ones that were parked."""
    told = [note(gate, *word) for word in (("open", 5), ("open", 5), ("closed", 9), ("closed", 9), ("open", 5))]
    assert told == [True, False, True, False, False]
    assert [(row.opened_at_ms, row.closed_at_ms) for row in list_alerts(gate.store, closed=True)] == [(5, 9)]
    assert list_alerts(gate.store) == []


def test_it_opens_anew(gate: Gate) -> None:
    """After its end; the former one stays as it was."""
    for word in (("open", 5), ("closed", 9), ("open", 12)):
        note(gate, *word)
    assert [(row.opened_at_ms, row.closed_at_ms) for row in list_alerts(gate.store, closed=True)] == [
        (12, None),
        (5, 9),
    ]


def test_what_the_breaker_does_is_a_decision(gate: Gate) -> None:
    """It stands in the audit; another alert decides nothing."""
    note(gate, "open", 5)
    note(gate, "open", 5, kind="issuer_expired")
    note(gate, "closed", 9)
    assert [(entry.action, entry.object) for entry in list_audit(gate.store, None, None, 9)] == [
        ("breaker", "cohort/software 2026.45")
    ] * 2


def test_a_person_closes_what_its_edge_cannot(gate: Gate) -> None:
    """Once, with a reason, and it stands in the audit; load is told, and the edge may open it anew."""
    note(gate, "open", 5, kind="issuer_expired")
    one = alert_id("issuer_expired edge-1", 5)
    with pytest.raises(ConfigError):
        close_alert(gate.store, one, "cli:ann", " ")
    close_alert(gate.store, one, "cli:ann", "the edge was taken down")
    assert (list_alerts(gate.store), closings_since(gate.store, gate.clock.ms)) == (
        [],
        [("issuer_expired edge-1", gate.clock.ms)],
    )
    [entry] = list_audit(gate.store, None, None, 9)
    assert (entry.action, entry.actor, entry.object) == ("alert-close", "cli:ann", f"alert/{one}")
    assert entry.detail["reason"] == "the edge was taken down"
    with pytest.raises(NotFound):
        close_alert(gate.store, one, "cli:ann", "again")
    assert closings_since(gate.store, gate.clock.ms + 1) == []
    assert note(gate, "open", gate.clock.ms + 1, kind="issuer_expired")


def test_a_hold_is_not_closed_while_its_edge_may_keep_it(gate: Gate) -> None:
    """The list would hide what is in force; only who says that the edge is gone may close it."""
    note(gate, "open", 5)
    one = alert_id("breaker edge-1", 5)
    with pytest.raises(Conflict, match="breaker off"):
        close_alert(gate.store, one, "cli:ann", "seen")
    assert len(list_alerts(gate.store)) == 1
    close_alert(gate.store, one, "cli:ann", "edge-1 was taken down", edge_gone=True)
    assert list_alerts(gate.store) == []
