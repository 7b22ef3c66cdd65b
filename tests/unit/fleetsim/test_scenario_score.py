"""The score of a scenario: what it knows to be true, against what the gate says that it decided."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleetsim.gate import InputError
from fleetsim.scenarios.page import page, what_happens
from fleetsim.scenarios.score import Decisions, OpenedAlert, Score, Transition, as_json, lines, read_scores, score
from fleetsim.scenarios.truth import Truth

START_MS, TROUBLE_MS, OFF_MS = 1_000_000.0, 2_000_000.0, 3_000_000.0


def device(number: int) -> Any:
    """What truth and ledger ask of a device."""
    bundle = SimpleNamespace(tenant="acme", device_id=f"car-{number}")
    return SimpleNamespace(bundle=bundle, transport="mqtt", notes=SimpleNamespace(sends=10, answers={"accepted": 10}))


def move(number: int, after: str, at_ms: float) -> Transition:
    return Transition("acme", f"car-{number}", after, int(at_ms))


def alert(opened_ms: float, signal: str = "Vehicle.Speed", cohort: str = "software 2026.40.3") -> OpenedAlert:
    return OpenedAlert("median", "acme", cohort, signal, int(opened_ms), int(opened_ms), 70)


class Run:
    """Ten devices; the first one attacks, the second has a benign disorder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.truth = Truth()
        self.truth.notes |= {"scenario": "clone", "vehicles": 10, "speed": 10.0, "before_s": 1000, "trouble_s": 2600}
        self.truth.notes |= {"started_ms": START_MS, "trouble_ms": TROUBLE_MS, "off_ms": OFF_MS, "lag_s": 0.0}

    def attack(self, deserves: str = "quarantined") -> None:
        self.truth.attacks(device(0), "clone_mqtt", TROUBLE_MS, deserves=deserves)

    def disorder(self, at_worst: str = "watched") -> None:
        self.truth.befalls(device(1), "lost_counter", TROUBLE_MS, at_worst=at_worst)

    def due(self) -> None:
        self.truth.alert_due("unit_mixup", "", TROUBLE_MS, cohort="2026.40.3", signal="Vehicle.Speed")

    def score(self, *transitions: Transition, alerts: tuple[OpenedAlert, ...] = ()) -> Score:
        self.truth.save(self.path, [device(number) for number in range(10)])
        return score(self.path, Decisions(list(transitions), list(alerts)))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "truth.db")


def test_an_attacker_is_detected_when_it_is_where_it_deserves_to_be(run: Run) -> None:
    """The time counts from its first hostile message to quarantine, not to the watch before it."""
    run.attack()
    found = run.score(move(0, "watched", TROUBLE_MS + 5_000), move(0, "quarantined", TROUBLE_MS + 42_000))
    assert (found.detection_rate, found.kinds[0].detected, found.kinds[0].median_s) == (1.0, 1, 42.0)
    assert found.problems() == []


def test_an_attacker_that_is_only_watched_is_a_miss(run: Run) -> None:
    """And the score says of which kind."""
    run.attack()
    found = run.score(move(0, "watched", TROUBLE_MS + 5_000))
    assert found.detection_rate == 0.0
    assert found.problems() == ["clone_mqtt: 0 of 1 detected"]


def test_one_attacker_that_is_missed_is_a_problem(run: Run) -> None:
    """Whoever else of its kind was caught: 1 of 3 is no detection."""
    for number in (2, 3):
        run.truth.attacks(device(number), "clone_mqtt", TROUBLE_MS)
    run.attack()
    assert run.score(move(0, "quarantined", TROUBLE_MS + 1)).problems() == ["clone_mqtt: 1 of 3 detected"]


def test_what_was_decided_before_the_attack_does_not_count(run: Run) -> None:
    """A quarantine of before detects nothing."""
    run.attack()
    assert run.score(move(0, "quarantined", TROUBLE_MS - 1)).detection_rate == 0.0


def test_an_honest_device_in_quarantine_is_a_false_positive(run: Run) -> None:
    """Whether or not something befell it; the rate is that of honest devices alone."""
    run.attack()
    found = run.score(
        move(0, "quarantined", TROUBLE_MS), move(7, "watched", START_MS), move(7, "quarantined", START_MS)
    )
    assert found.quarantined == ["acme/car-7"]
    assert found.false_positive_rate == pytest.approx(1 / 9)
    assert "1 honest devices in quarantine: acme/car-7" in found.problems()


@pytest.mark.parametrize(("at_worst", "worse"), [("watched", 0), ("trusted", 1)])
def test_an_honest_device_may_be_watched_for_some_disorders(run: Run, at_worst: str, worse: int) -> None:
    """It is counted where it does not even deserve that, and is no false positive."""
    run.disorder(at_worst)
    found = run.score(move(1, "watched", TROUBLE_MS + 1))
    assert (found.kinds[0].worse, found.watched, found.false_positive_rate) == (worse, 1, 0.0)
    assert bool(found.problems()) == bool(worse)


def test_an_honest_device_that_is_watched_and_deserves_trust_is_a_problem(run: Run) -> None:
    """Whether what befell it looks like no attack, or nothing befell it at all."""
    run.disorder("trusted")
    found = run.score(move(1, "watched", TROUBLE_MS + 1), move(7, "watched", START_MS))
    assert found.problems() == [
        "honest devices treated worse than they deserve: lost_counter 1 of 1, undisturbed 1 of 9",
    ]


@pytest.mark.parametrize(("tolerated", "problems"), [(2, 0), (1, 2)])
def test_a_scenario_may_tolerate_some_of_them(run: Run, tolerated: int, problems: int) -> None:
    """As many as the gate cannot know better of: in quarantine, who deserve at most a watch."""
    run.truth.notes["tolerated"] = tolerated
    for number in (1, 2):
        run.truth.befalls(device(number), "bad_release", TROUBLE_MS)
    found = run.score(*(move(number, "quarantined", TROUBLE_MS + 1) for number in (1, 2)))
    assert len(found.problems()) == problems


def test_an_alert_that_is_due_is_recognized_by_its_words(run: Run) -> None:
    """Cohort and signal have to be the ones in trouble; another alert meanwhile is a further one."""
    run.due()
    found = run.score(alerts=(alert(TROUBLE_MS + 9_000, cohort="software 2026.44.1"), alert(TROUBLE_MS + 33_000)))
    assert (found.due[0].after_s, found.false_alerts) == (33.0, [])
    assert found.further_alerts == ["median acme software 2026.44.1 Vehicle.Speed (70 vehicles)"]
    told = "  further alert while the trouble lasted: median acme software 2026.44.1 Vehicle.Speed (70 vehicles)"
    assert told in lines(found)
    assert not any("classified" in line for line in lines(found))
    assert found.problems() == []


def test_an_alert_that_is_late_or_missing_is_told(run: Run) -> None:
    """After a minute it is late."""
    run.due()
    assert run.score(alerts=(alert(TROUBLE_MS + 61_000),)).problems() == [
        "unit_mixup: alert after 61 s, due within 60 s"
    ]
    assert run.score().problems() == ["unit_mixup: no alert"]


def test_an_alert_before_the_trouble_is_false(run: Run) -> None:
    """So is every one of a scenario in which none is due."""
    run.due()
    assert len(run.score(alerts=(alert(TROUBLE_MS - 1), alert(TROUBLE_MS + 10_000))).false_alerts) == 1
    run.truth.alerts.clear()
    assert len(run.score(alerts=(alert(TROUBLE_MS + 10_000),)).false_alerts) == 1


def test_what_begins_when_everybody_is_switched_off_is_no_false_alert(run: Run) -> None:
    """A fleet that ends is silent, and the watch says so."""
    assert run.score(alerts=(alert(OFF_MS + 30_000),)).false_alerts == []


def test_a_class_of_disorder_that_must_occur_and_does_not_is_told(run: Run) -> None:
    """The gate tells the classes apart: a run in which one is missing has shown nothing about it."""
    run.truth.notes["classes"] = "duplicate replay"
    run.truth.save(run.path, [])
    found = score(run.path, Decisions([], [], {"duplicate": 3, "replay": 0}))
    assert found.problems() == ["no message was classified as replay"]


def test_the_page_has_a_row_for_each_attack_of_each_score(run: Run, tmp_path: Path) -> None:
    """A score survives its file; a scenario without one has dashes."""
    run.attack()
    found = run.score(move(0, "quarantined", TROUBLE_MS + 42_000))
    assert any("detected 1 of 1, after 42 s" in line for line in lines(found))
    (tmp_path / "score.json").write_bytes(as_json(found))
    shown = page(read_scores([tmp_path / "score.json"]))
    assert "| `clone` | `clone_mqtt` | 1 of 1 | 42 | 42 | 9 | 0 | 0.00% |" in shown
    assert "| `slow-probe` | - |" in shown


def test_the_page_has_a_row_for_each_alert_that_is_due(run: Run) -> None:
    """Those that did not come too."""
    run.due()
    run.truth.alert_due("clock_wave", "clock_skew", TROUBLE_MS)
    shown = page({"clone": run.score(alerts=(alert(TROUBLE_MS + 33_000),))})
    assert "| `clone` | median acme software 2026.40.3 Vehicle.Speed (70 vehicles) | 33 | 0 |" in shown
    assert "| `clone` | clock_wave: none came | - | 0 |" in shown


def test_the_page_in_docs_has_the_scenarios_that_there_are() -> None:
    """Its figures are of a run; what happens in each, how long and how fast is compared with the code."""
    shown = (Path(__file__).parents[3] / "docs" / "reference" / "scenarios.md").read_text()
    assert "\n".join(what_happens()) in shown


def test_a_file_that_is_no_ledger_is_told(tmp_path: Path) -> None:
    """Neither a missing one nor another database is a traceback."""
    with pytest.raises(InputError, match=r"nothing\.db does not exist"):
        score(tmp_path / "nothing.db", Decisions([], []))
    with closing(sqlite3.connect(tmp_path / "other.db")) as db, db:
        db.execute("CREATE TABLE run (a)")
    with pytest.raises(InputError, match="no ledger of a scenario"):
        score(tmp_path / "other.db", Decisions([], []))


def test_a_run_that_was_not_loaded_to_its_end_is_scored_and_marked(run: Run) -> None:
    """It passes nothing."""
    run.truth.save(run.path, [])
    found = score(run.path, Decisions([], [], {}, complete=False))
    assert found.problems() == ["the gate had not loaded or looked at everything: the score is incomplete"]
    assert any("incomplete" in line for line in lines(found))


def test_input_that_is_no_good_is_told_apart_from_a_gate_that_was_wrong(run: Run, tmp_path: Path) -> None:
    """2 and a sentence: for a file that is not there, one that is neither, and two that were swapped; 1 for a gate."""
    run.due()
    run.truth.save(run.path, [])
    decisions, other = tmp_path / "decisions.json", tmp_path / "other.json"
    decisions.write_text('{"transitions": [], "alerts": []}')
    other.write_text("[]")
    for ledger, decided, status, says in (
        (run.path, decisions, 1, "unit_mixup: no alert"),
        (run.path, tmp_path / "absent.json", 2, "absent.json does not exist"),
        (tmp_path / "absent.db", decisions, 2, "absent.db does not exist"),
        (run.path, other, 2, "has no decisions"),
        (decisions, run.path, 2, "the order is LEDGER DECISIONS.json"),
    ):
        command = [sys.executable, "-m", "fleetsim", "score", str(ledger), str(decided)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1)
        assert says in done.stderr
