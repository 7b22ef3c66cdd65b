"""The proof understands released events: copies of what was held, by a decision on record, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.integration.load.audit import Audit
from tests.integration.load.test_prove import STEPS, Bureau
from tests.integration.load.test_release import decide, hold
from tests.segments import DAY_MS, RECEIVED_AT

from fleetgate.control.releases import NO_END_MS, Release

ONE = "spool = {spool} AND segment = 2 AND decision != ''"


@pytest.fixture
def audit(bench: Any, tmp_path: Path) -> Audit:
    """Two segments of held events, released and signed, and one that stays held."""
    found = Audit(bench, tmp_path)
    for name in ("kept", "proof"):
        hold(bench, name)
    hold(bench, "proof", RECEIVED_AT + 2 * DAY_MS)
    bench.load_all()
    decide(bench, "proof")
    bench.restart()
    bench.load_all()
    found.sign()
    return found


def decisions(audit: Audit) -> dict[str, Release]:
    return {release.decision: release for release in audit.bench.decided}


def found(audit: Audit, known: dict[str, Release]) -> list[tuple[str, int | None, str | None]]:
    return [(one.kind.value, one.segment, one.table) for one in audit.verify(decisions=known).findings]


def test_what_was_released_has_no_findings(audit: Audit) -> None:
    """The copies are none of what was loaded, and all of what was released."""
    report = audit.verify(decisions=decisions(audit))
    assert (report.findings, report.notes) == ([], [])
    assert (
        int(
            audit.bench.clickhouse.rows(f"SELECT count() FROM events WHERE {ONE}".format(spool=f"'{audit.spool}'"))[0][
                0
            ]
        )
        == 3
    )


@pytest.mark.parametrize(
    ("table", "change", "expected"),
    [
        ("events", f"DELETE WHERE {ONE}", [("missing", 2, "events")]),
        ("events", f"UPDATE signal_values = [51.] WHERE {ONE} AND event_index = 1", [("altered", 2, "events")]),
        ("events", f"UPDATE decision = '' WHERE {ONE}", [("added", 2, "events"), ("missing", 2, "events")]),
        ("events", f"UPDATE decision = '9-9' WHERE {ONE}", [("added", 2, "events"), ("missing", 2, "events")]),
        ("held_events", "DELETE WHERE spool = {spool} AND segment = 2 AND event_index = 1",
         [("added", 2, "events"), ("missing", 2, "held_events")]),
    ],
)  # fmt: skip
def test_whatever_is_done_to_it_is_found(
    audit: Audit, table: str, change: str, expected: list[tuple[str, int, str]]
) -> None:
    """A copy that is gone, altered, taken for an accepted event or for that of another decision; a held row that is
    gone."""
    audit.tamper(table, change)
    assert sorted(set(found(audit, decisions(audit)))) == expected


@pytest.mark.parametrize("wrong", ["nobody's", "another device's", "another case's"])
def test_copies_that_nobody_released_are_found(audit: Audit, wrong: str) -> None:
    """By the records of control: the decision is not there, is about another device, or about another time."""
    [release] = audit.bench.decided
    known = {
        "nobody's": {},
        "another device's": {release.decision: release._replace(device_id="another")},
        "another case's": {release.decision: release._replace(until_ms=RECEIVED_AT + 2 * DAY_MS)},
    }[wrong]
    where = [3] if wrong == "another case's" else [2, 3]
    assert found(audit, known) == [("added", segment, "events") for segment in where]


def test_records_that_are_away_are_a_note(audit: Audit) -> None:
    """The rows are compared all the same."""
    report = audit.verify()
    assert (report.findings, len(report.notes)) == ([], 1)


def test_a_release_that_was_cut_off_is_a_note(audit: Audit) -> None:
    """Load was ended between the copy and its note, and is not there to go on."""
    audit.tamper("releases", "DELETE WHERE spool = {spool} AND segment = 3")
    report = audit.verify(decisions=decisions(audit))
    assert (report.findings, len(report.notes)) == ([], 1)


def test_a_released_message_is_proved(bench: Any, tmp_path: Path) -> None:
    """From its bytes to the held row and to the copy, which a decision's name is on; an altered copy is found."""
    bureau = Bureau(bench, tmp_path)
    bench.decided.append(Release(1, "1-77", "acme", bureau.sender.device_id, RECEIVED_AT, NO_END_MS))
    bench.restart()
    bench.load_all()
    bureau.sign()
    proof = bureau.prove(2)
    assert {step.step: step.holds for step in proof.steps} == dict.fromkeys(STEPS, True), proof.steps
    assert "released by decision 1-77" in next(step.what for step in proof.steps if step.step == "rows")
    bureau.tamper("events", "UPDATE signal_values = [7.] WHERE spool = {spool} AND decision = '1-77'")
    assert "signal_values" in bureau.failing(2)["rows"]
