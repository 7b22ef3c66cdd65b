"""What people say of a cohort, and what edges do: in the records, in the audit, once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleetgate.control.audit import list_audit
from fleetgate.control.breaker import list_alerts, list_overrides, note_alert, overrides, set_mode
from fleetgate.control.cohorts import Cohort, CohortKind, Mode
from fleetgate.errors import ConfigError, NotFound

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

RELEASE = Cohort(CohortKind.SOFTWARE, "acme", "2026.45")


class TestOverrides:
    """hold, off, auto."""

    @pytest.fixture(autouse=True)
    def _tenant(self, gate: Gate) -> None:
        gate.enrol()

    def test_the_latest_word_stands(self, gate: Gate) -> None:
        """And each stands in the audit, with who and why."""
        set_mode(gate.store, RELEASE, Mode.HOLD, "cli:ann", "the release of Friday")
        set_mode(gate.store, RELEASE, Mode.OFF, "cli:bob", "it was an attack")
        assert overrides(gate.store) == {RELEASE: Mode.OFF}
        [row] = list_overrides(gate.store)
        assert (row.mode, row.tenant, row.name, row.actor, row.reason) == (
            "off", "acme", "2026.45", "cli:bob", "it was an attack",
        )  # fmt: skip
        said = [(entry.action, entry.actor, entry.object) for entry in list_audit(gate.store, None, None, 9)]
        assert said[:2] == [
            ("breaker-off", "cli:bob", "cohort/software 2026.45"),
            ("breaker-hold", "cli:ann", "cohort/software 2026.45"),
        ]

    def test_auto_takes_it_back(self, gate: Gate) -> None:
        """Once: what nobody said cannot be taken back."""
        set_mode(gate.store, RELEASE, Mode.HOLD, "cli:ann", "the release of Friday")
        set_mode(gate.store, RELEASE, Mode.AUTO, "cli:ann", "mended")
        assert overrides(gate.store) == {}
        with pytest.raises(NotFound):
            set_mode(gate.store, RELEASE, Mode.AUTO, "cli:ann", "mended")

    def test_it_is_of_a_tenant_that_there_is(self, gate: Gate) -> None:
        """A mistyped one would be held, and the fleet not. A CA is nobody's."""
        with pytest.raises(NotFound, match="no tenant acmee"):
            set_mode(gate.store, Cohort(CohortKind.TENANT, "acmee", ""), Mode.HOLD, "cli:ann", "the release")
        set_mode(gate.store, Cohort(CohortKind.ISSUER, "", "c0ffee"), Mode.HOLD, "cli:ann", "a new CA")
        assert [cohort.name for cohort in overrides(gate.store)] == ["c0ffee"]

    def test_it_needs_a_reason(self, gate: Gate) -> None:
        """As every decision."""
        with pytest.raises(ConfigError):
            set_mode(gate.store, RELEASE, Mode.HOLD, "cli:ann", " ")


class TestAlerts:
    """What an edge has opened and closed."""

    def note(self, gate: Gate, state: str, at_ms: int, kind: str = "breaker") -> bool:
        words = (kind, "acme", "software 2026.45", {"vehicles": 20})
        return note_alert(gate.store, "load", f"{kind} edge-1", state, at_ms, *words)

    def test_each_word_is_taken_once(self, gate: Gate) -> None:
        """Load repeats segments after a crash, and old ones that were parked."""
        told = [
            self.note(gate, *word) for word in (("open", 5), ("open", 5), ("closed", 9), ("closed", 9), ("open", 5))
        ]
        assert told == [True, False, True, False, False]
        assert [(row.opened_at_ms, row.closed_at_ms) for row in list_alerts(gate.store, closed=True)] == [(5, 9)]
        assert list_alerts(gate.store) == []

    def test_it_opens_anew(self, gate: Gate) -> None:
        """After its end; the former one stays as it was."""
        for word in (("open", 5), ("closed", 9), ("open", 12)):
            self.note(gate, *word)
        assert [(row.opened_at_ms, row.closed_at_ms) for row in list_alerts(gate.store, closed=True)] == [
            (12, None),
            (5, 9),
        ]

    def test_what_the_breaker_does_is_a_decision(self, gate: Gate) -> None:
        """It stands in the audit; another alert decides nothing."""
        self.note(gate, "open", 5)
        self.note(gate, "open", 5, kind="issuer_expired")
        self.note(gate, "closed", 9)
        assert [(entry.action, entry.object) for entry in list_audit(gate.store, None, None, 9)] == [
            ("breaker", "cohort/software 2026.45")
        ] * 2
