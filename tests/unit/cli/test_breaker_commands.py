"""`fleetgate breaker` and `alerts close`: what a person sees of cohorts in trouble, and says about one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fleetgate.accept.tls import trust_bundle
from fleetgate.clock import SystemClock
from fleetgate.configfile import load
from fleetgate.control.edgealerts import Said, alert_id, note_alert
from fleetgate.control.profile import key_digest_of
from fleetgate.control.store import Store

if TYPE_CHECKING:
    from tests.unit.cli.conftest import Shell

RELEASE = ("--tenant", "acme", "--software", "2026.45")


def test_a_word_is_listed_until_it_is_taken_back(gate: Shell) -> None:
    """With who said it, and why."""
    answer = gate.must("breaker", "hold", *RELEASE, "--reason", "the release")
    assert "edges learn it within a second" in answer
    assert "whether a device runs 2026.45 is not known" in answer, "there is no ClickHouse here"
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


@pytest.mark.parametrize("word", ["hold", "off", "auto"])
@pytest.mark.parametrize(
    "which",
    [
        ("--tenant", "acme", "--software", ""),
        ("--tenant", "acme", "--issuer", ""),
        ("--tenant", "", "--issuer", "c0ffee"),
        ("--tenant", ""),
    ],
    ids=" ".join,
)
def test_an_empty_option_widens_no_word(gate: Shell, word: str, which: tuple[str, ...]) -> None:
    """A version that a script did not find is not all versions of the tenant."""
    gate.must("breaker", "hold", "--tenant", "acme", "--reason", "said before")
    assert gate.run("breaker", word, *which, "--reason", "x") == 2
    assert "none of them empty" in gate.err
    assert [said["reason"] for said in gate.json("breaker", "list")["overrides"]] == ["said before"]


def test_a_mistyped_ca_is_refused_and_one_of_the_bundle_taken(gate: Shell) -> None:
    """As `openssl` names its key: whoever mistypes it would think that its devices are held."""
    ca = trust_bundle(load(None))[0]
    name = key_digest_of(ca.public_key()).hex()[:16]
    assert gate.run("breaker", "hold", "--issuer", name[::-1], "--reason", "a new CA") != 0
    assert "neither in edge.trust_bundle nor in an alert" in gate.err
    gate.must("breaker", "hold", "--issuer", name, "--reason", "a new CA")
    assert [said["name"] for said in gate.json("breaker", "list")["overrides"]] == [name]


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


def test_the_alerts_are_listed_in_columns(gate: Shell) -> None:
    """Whole numbers, and a dash for what an alert does not have."""
    detail: dict[str, str | int | float] = {"vehicles": 20, "size": 400, "entered": 19, "signal_1": "malformed_body"}
    held = Said(
        key="a", state="open", at_ms=1_000, kind="breaker", tenant="acme", cohort="software 2026.45", detail=detail
    )
    ended = Said(key="b", state="open", at_ms=5_000, kind="issuer_expired", tenant="", cohort="issuer c0ffee")
    with Store.open(load(None), SystemClock(), write=True) as store:
        note_alert(store, "load", held)
        note_alert(store, "load", ended)
    rows = [line.split("  ") for line in gate.must("breaker", "list").splitlines()[1:3]]
    assert [[word.strip() for word in row if word.strip()] for row in rows] == [
        ["issuer_expired", "all", "issuer c0ffee", "-", "-", "-", "-", "1970-01-01 00:00:05Z", "-"],
        ["breaker", "acme", "software 2026.45", "20", "400", "19", "malformed_body", "1970-01-01 00:00:01Z", "-"],
    ]
