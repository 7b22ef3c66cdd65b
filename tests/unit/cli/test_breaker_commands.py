"""`fleetgate breaker` and `alerts close`: what a person sees of cohorts in trouble, and says about one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleetgate.clock import SystemClock
from fleetgate.configfile import load
from fleetgate.control.edgealerts import Said, alert_id, note_alert
from fleetgate.control.store import Store

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell

RELEASE = ("--tenant", "acme", "--software", "2026.45")


def test_a_word_is_listed_until_it_is_taken_back(gate: Shell) -> None:
    """With who said it, and why."""
    assert "edges learn it within a second" in gate.must("breaker", "hold", *RELEASE, "--reason", "the release")
    [said] = gate.json("breaker", "list")["overrides"]
    assert (said["mode"], said["tenant"], said["kind"], said["name"], said["reason"]) == (
        "hold", "acme", "software", "2026.45", "the release",
    )  # fmt: skip
    gate.must("breaker", "auto", *RELEASE, "--reason", "mended")
    assert gate.json("breaker", "list") == {"alerts": [], "overrides": []}
    assert "no cohort is in trouble" in gate.must("breaker", "list")


@pytest.mark.parametrize(
    "which", [(), ("--software", "2026.45"), ("--tenant", "acme", "--issuer", "c0ffee")], ids=["none", "half", "two"]
)
def test_it_must_be_clear_which_cohort_is_meant(gate: Shell, which: tuple[str, ...]) -> None:
    """A version is of a tenant, a CA of all."""
    assert gate.run("breaker", "off", *which, "--reason", "x") != 0
    assert "--tenant and --software" in gate.err


def test_an_alert_of_an_edge_that_is_gone_is_closed_by_its_id(gate: Shell) -> None:
    """Nobody else would close it; what is no alert of an edge is said to be none."""
    with Store.open(load(None), SystemClock(), write=True) as store:
        kind, key = "issuer_expired", "issuer_expired edge-2 c0ffee"
        said = Said(key=key, state="open", at_ms=5, kind=kind, tenant="", cohort="issuer c0ffee")
        note_alert(store, "load", said)
    assert [alert["kind"] for alert in gate.json("breaker", "list")["alerts"]] == ["issuer_expired"]
    close = ("alerts", "close", alert_id("issuer_expired edge-2 c0ffee", 5), "--reason", "edge-2 was taken down")
    assert "closed" in gate.must(*close)
    assert gate.json("breaker", "list")["alerts"] == []
    assert gate.run(*close) != 0
    assert "no edge has an open alert" in gate.err
