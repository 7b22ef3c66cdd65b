"""What people say of a cohort: in the records and in the audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleetgate.control.audit import list_audit
from fleetgate.control.breaker import list_overrides, overrides, set_mode
from fleetgate.control.cohorts import Cohort, CohortKind, Mode
from fleetgate.control.edgealerts import Said, note_alert
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
        """A mistyped one would be held, and the fleet not."""
        with pytest.raises(NotFound, match="no tenant acmee"):
            set_mode(gate.store, Cohort(CohortKind.TENANT, "acmee", ""), Mode.HOLD, "cli:ann", "the release")
        assert overrides(gate.store) == {}

    def test_it_is_of_a_ca_that_there_is(self, gate: Gate) -> None:
        """One that the configuration trusts or an edge has told of: a mistyped one is none of them."""
        trusted, told, mistyped = (Cohort(CohortKind.ISSUER, "", digit * 16) for digit in "abc")
        word = Said(key="b", state="open", at_ms=5, kind="breaker", tenant="", cohort=str(told))
        note_alert(gate.store, "load", word)
        with pytest.raises(ConfigError, match="16 hex digits"):
            set_mode(gate.store, Cohort(CohortKind.ISSUER, "", "c0ffee"), Mode.HOLD, "cli:ann", "a new CA")
        for cohort in (trusted, told):
            set_mode(gate.store, cohort, Mode.HOLD, "cli:ann", "a new CA", [trusted.name])
        with pytest.raises(NotFound, match="CA cccc"):
            set_mode(gate.store, mistyped, Mode.HOLD, "cli:ann", "a new CA", [trusted.name])
        assert overrides(gate.store).keys() == {trusted, told}

    def test_it_needs_a_reason(self, gate: Gate) -> None:
        """As every decision."""
        with pytest.raises(ConfigError):
            set_mode(gate.store, RELEASE, Mode.HOLD, "cli:ann", " ")
