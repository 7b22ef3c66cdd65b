"""What the verdict finds in the rows of a gate that really runs: all of it, some of it, too much of it.

The generator is the tests' own, so that each message is known by name; with locust, tests/shapes does the same.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.outages import token_of
from tests.faults.proxy import Forward, Reply, Request
from tests.gate import Installation
from tests.loadruns import EVENTS, MESSAGES, LoadRun, Rig, missed, standing

ALL = 2 * MESSAGES * EVENTS
GIVEN_UP = 1.0


@pytest.fixture(scope="module")
def rig(authority: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with standing(authority, tmp_path_factory) as made:
        yield made


@pytest.fixture
def run(rig: Rig, tmp_path: Path) -> LoadRun:
    return LoadRun(rig, tmp_path / "run")


def test_a_sound_gate_passes(run: LoadRun) -> None:
    """Every message is acknowledged and stored once; the files say so."""
    with run.measured() as journal:
        run.drive(journal, "sound")
    verdict = run.judge()
    assert (verdict.status, verdict.exit_status, missed(verdict), verdict.invalid) == ("passed", 0, set(), [])
    assert verdict.reconciled is not None
    assert (verdict.reconciled.acknowledged, verdict.reconciled.stored) == (ALL, ALL)
    told = json.loads((run.directory / "verdict.json").read_text())
    assert (told["status"], told["limits"]["lost"]["value"]) == ("passed", 0)
    assert {"edge", "load", "generator"} <= set(told["processes"])
    with (run.directory / "verdict.csv").open(newline="") as file:
        assert all(row["met"] == "True" for row in csv.DictReader(file))


def test_clickhouse_that_takes_no_rows_fails_until_it_does(run: LoadRun) -> None:
    """What is only in the spool when the test gives up waiting counts as lost; once loaded, the same run passes."""

    def full(request: Request, forward: Forward) -> Reply | None:
        return Reply(503, b"full", {}) if token_of(request) else forward()

    run.rig.proxy.behaviour = full
    with run.measured() as journal:
        run.drive(journal, "unloaded")
    verdict = run.judge(GIVEN_UP)
    run.rig.proxy.heal()
    assert (verdict.exit_status, missed(verdict)) == (1, {"lost"})
    assert verdict.reconciled is not None
    assert verdict.reconciled.lost == ALL
    assert run.judge().status == "passed"


def test_a_row_that_went_missing_is_lost(run: LoadRun) -> None:
    """One message of many, named in the answer."""
    with run.measured() as journal:
        run.drive(journal, "robbed")
    assert run.judge().status == "passed"
    gone = run.cars[0].device_id
    run.rig.sql(f"ALTER TABLE events DELETE WHERE device_id = '{gone}' AND seq = 5 SETTINGS mutations_sync = 1")
    verdict = run.judge(GIVEN_UP)
    assert (verdict.exit_status, missed(verdict)) == (1, {"lost"})
    assert verdict.reconciled is not None
    assert verdict.reconciled.lost == EVENTS
    assert verdict.reconciled.examples[0].startswith(f"acme/{gone}, epoch 1, seq 5: {EVENTS} lost")


def test_a_row_that_nobody_sent_fails(run: LoadRun) -> None:
    """Rows under a number that the device never used, as a forged message would leave them."""
    with run.measured() as journal:
        run.drive(journal, "forged")
    assert run.judge().status == "passed"
    device = run.cars[0].device_id
    run.rig.sql(f"INSERT INTO events SELECT * REPLACE (seq + 500 AS seq) FROM events WHERE device_id = '{device}'")
    verdict = run.judge()
    assert (verdict.exit_status, missed(verdict)) == (1, {"unexpected"})


def test_a_run_that_ended_early_is_none(run: LoadRun) -> None:
    """Somebody pressed STOP: every limit is kept, and nothing is shown."""
    with run.measured() as journal:
        run.drive(journal, "stopped")
    facts = json.loads((run.directory / "run.json").read_text())
    (run.directory / "run.json").write_text(json.dumps({**facts, "minutes": 3.0}))
    verdict = run.judge()
    assert (verdict.exit_status, missed(verdict)) == (3, set())
    assert any("ended after" in reason and "of 180 s" in reason for reason in verdict.invalid)


def test_a_later_run_on_the_gate_changes_no_verdict(run: LoadRun) -> None:
    """With the same devices, in epochs that this run never had: it is judged again, and has still passed."""
    with run.measured() as journal:
        run.drive(journal, "again")
    assert run.judge().status == "passed"
    of = f"device_id = '{run.cars[0].device_id}'"
    since = "received_at + INTERVAL 1 MINUTE AS received_at"
    run.rig.sql(f"INSERT INTO events SELECT * REPLACE (epoch + 1 AS epoch, {since}) FROM events WHERE {of}")
    assert run.judge().status == "passed"


def test_an_attack_that_was_taken_for_a_good_message_fails(run: LoadRun) -> None:
    """Whatever share of all requests it is: one gate that verifies nothing must not hide behind a busy fleet."""
    with run.measured() as journal:
        run.drive(journal, "fooled", attack="forged_mac")
    verdict = run.judge()
    assert (verdict.exit_status, missed(verdict)) == (1, {"attacks_accepted"})
    assert verdict.beside["attacks_answered"] == MESSAGES


def test_an_honest_device_in_quarantine_fails(run: LoadRun) -> None:
    """Whoever put it there."""
    with run.measured() as journal:
        run.drive(journal, "wronged")
    run.rig.home.quarantine(run.cars[1])
    verdict = run.judge()
    assert (verdict.exit_status, missed(verdict)) == (1, {"false_quarantines"})
    assert verdict.reconciled is not None
    assert verdict.reconciled.false_quarantines == [f"acme/{run.cars[1].device_id}"]
