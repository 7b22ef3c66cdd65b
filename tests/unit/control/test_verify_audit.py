"""`fleetgate verify audit`: whatever somebody does to the audit who can write into the database, it is found.

`careful` attackers make every later hash anew, as anybody can who knows the rule: then the signed heads tell.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.unit.control.desk import Desk, Running

from fleetgate.control import auditheads
from fleetgate.control.audit import Unreadable, list_rows
from fleetgate.control.auditchain import COLUMNS, chained
from fleetgate.control.auditheads import AuditChanged, begin_anew, chain_of, sign_audit
from fleetgate.control.heads import NO_LINK, SignedAuditHead, read_public_key
from fleetgate.control.signing import SignerRefused
from fleetgate.control.signlog import read_log
from fleetgate.errors import NotFound
from fleetgate.proof.audit import Allowed, stored_heads, verify_audit
from fleetgate.proof.findings import AuditReport

if TYPE_CHECKING:
    from tests.unit.control.conftest import Gate

NOTHING = Allowed()
NOTED, SIGNED = 8, 6
"""Rows of the audit, and those of them with a signed head behind them: one at place 3, one at place 6."""


class Ledger:
    """A gate's audit with a signer."""

    def __init__(self, gate: Gate, directory: Path) -> None:
        self.gate = gate
        self.desk = Desk(directory)
        self.running = Running(self.desk, directory)

    def note(self, count: int) -> None:
        for _ in range(count):
            self.gate.clock.ms += 1
            with self.gate.store.write("somebody") as write:
                write.note("keyring_rotate", "", "root/7", {"what": "for the test"})

    def sign(self) -> int:
        return sign_audit(self.gate.store, self.running.client, lambda _: None)

    def logged(self) -> list[SignedAuditHead]:
        return [line.audit for line, _ in read_log(self.desk.log) if line.audit is not None]

    def verify(self, heads: list[SignedAuditHead] | None = None, allowed: Allowed = NOTHING) -> AuditReport:
        known = stored_heads(self.gate.store)[0] if heads is None else heads
        return verify_audit(self.gate.store, known, read_public_key(self.desk.public), allowed)

    def found(self) -> list[tuple[str, int | None]]:
        return [(finding.kind.value, finding.place) for finding in self.verify().findings]

    def tamper(self, *statements: str, careful: bool = False) -> None:
        """As somebody who has the file, past the triggers; `careful`: the hashes are made anew."""
        with closing(sqlite3.connect(self.gate.config.path("control.db"))) as db, db:
            for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                db.execute(f"DROP TRIGGER {trigger}")
            for statement in statements:
                db.execute(statement)
            if careful:
                names = ", ".join(COLUMNS)
                rows = db.execute(f"SELECT {names} FROM audit ORDER BY place").fetchall()
                db.execute("DELETE FROM audit")
                done = chained(0, NO_LINK, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
                db.executemany(f"INSERT INTO audit ({names}, hash) VALUES (:{names.replace(', ', ', :')}, :hash)", done)


@pytest.fixture
def ledger(gate: Gate, tmp_path: Path) -> Iterator[Ledger]:
    found = Ledger(gate, tmp_path)
    for count in (SIGNED // 2, SIGNED - SIGNED // 2):
        found.note(count)
        found.sign()
    found.note(NOTED - SIGNED)
    yield found
    found.running.stop()
    found.desk.signlog.close()


def test_an_audit_as_it_was_written_has_no_findings(ledger: Ledger) -> None:
    """What is new has no signed head yet; that is said, and is no finding."""
    report = ledger.verify()
    assert (report.rows, report.heads, report.unsigned, report.findings) == (NOTED, 2, NOTED - SIGNED, [])
    assert "nothing outside the database vouches" in report.notes[0]


SHIFT = ("UPDATE audit SET place = -place - 1 WHERE place >= 5", "UPDATE audit SET place = -place WHERE place < 0")
SWAP = (
    "UPDATE audit SET place = 99 WHERE place = 4",
    "UPDATE audit SET place = 4 WHERE place = 5",
    "UPDATE audit SET place = 5 WHERE place = 99",
)
ADD = "INSERT INTO audit SELECT {}, at_ms, 'mallory', action, tenant, object, detail, hash FROM audit WHERE place = 2"

CARELESS = {
    "time": (["UPDATE audit SET at_ms = at_ms - 1 WHERE place = 4"], [("altered", 4)]),
    "actor": (["UPDATE audit SET actor = 'mallory' WHERE place = 4"], [("altered", 4)]),
    "action": (["UPDATE audit SET action = 'resume' WHERE place = 4"], [("altered", 4)]),
    "tenant": (["UPDATE audit SET tenant = 'acme' WHERE place = 4"], [("altered", 4)]),
    "object": (["UPDATE audit SET object = 'root/8' WHERE place = 4"], [("altered", 4)]),
    "detail": (["UPDATE audit SET detail = detail || ' ' WHERE place = 4"], [("altered", 4)]),
    "hash": ([f"UPDATE audit SET hash = '{'ab' * 32}' WHERE place = 4"], [("altered", 4), ("altered", 5)]),
    "first": (["UPDATE audit SET actor = 'mallory' WHERE place = 1"], [("altered", 1)]),
    "unsigned": ([f"UPDATE audit SET actor = 'mallory' WHERE place = {NOTED}"], [("altered", NOTED)]),
    "no text": (["UPDATE audit SET actor = CAST(x'ff' AS TEXT) WHERE place = 4"], [("altered", 4)]),
    "bytes": (["UPDATE audit SET detail = CAST(detail AS BLOB) WHERE place = 4"], [("altered", 4)]),
    "no number": (["UPDATE audit SET at_ms = 'never' WHERE place = 4"], [("altered", 4)]),
    "no hash": (["UPDATE audit SET hash = x'ff' WHERE place = 4"], [("altered", 4), ("altered", 5)]),
    "missing": (["DELETE FROM audit WHERE place = 4"], [("missing", 4)]),
    "several missing": (["DELETE FROM audit WHERE place IN (4, 5)"], [("missing", 4)]),
    "first missing": (["DELETE FROM audit WHERE place = 1"], [("missing", 1)]),
    "added behind": ([ADD.format(NOTED + 1)], [("altered", NOTED + 1)]),
    "added before": ([ADD.format(0), ADD.format(-7)], [("altered", -7)]),
    "added within": (
        [*SHIFT, ADD.format(5)],
        [("altered", place) for place in range(5, NOTED + 2)] + [("altered", SIGNED)],
    ),
    "reordered": (SWAP, [("altered", 4), ("altered", 5), ("altered", 6)]),
    "cut off": ([f"DELETE FROM audit WHERE place >= {SIGNED}"], [("cut_off", SIGNED)]),
    "all gone": (["DELETE FROM audit"], [("cut_off", SIGNED)]),
}


@pytest.mark.parametrize(("statements", "findings"), CARELESS.values(), ids=CARELESS.keys())
def test_a_change_is_found_at_its_place(
    ledger: Ledger, statements: list[str], findings: list[tuple[str, int | None]]
) -> None:
    """And nowhere else: the rows behind it are what they were."""
    ledger.tamper(*statements)
    assert ledger.found() == findings


ANEW = ("ALTER TABLE audit RENAME TO former", f"CREATE TABLE audit ({', '.join([*COLUMNS, 'hash'])})")
"""A table without a key, whose columns take whatever is put into them; nothing stands in it yet."""
BACK = "INSERT INTO audit SELECT * FROM former ORDER BY place"
BESIDE = ADD.replace("FROM audit", "FROM former")

NOWHERE = ("altered", None, "a row stands where the place is no whole number")
ELSEWHERE = {
    "one twice": ([BESIDE.format(4)], [("altered", 4, "2 rows stand at one place")]),
    "at an end of what is read at once": ([BESIDE.format(2)], [("altered", 2, "2 rows stand at one place")]),
    "several times": ([BESIDE.format(4), BESIDE.format(4)], [("altered", 4, "3 rows stand at one place")]),
    "the last twice": ([BESIDE.format(NOTED)], [("altered", NOTED, "2 rows stand at one place")]),
    "none": ([BESIDE.format("NULL")], [NOWHERE]),
    "others": (
        [BESIDE.format(place) for place in ("4.5", "'4'", "CAST(x'ff' AS TEXT)", "x'04'")],
        [("altered", None, "4 rows stand where the place is no whole number")],
    ),
    "a fraction between two": (
        [BESIDE.format("4.0"), BESIDE.format(4)],
        [("altered", 4, "2 rows stand at one place"), NOWHERE],
    ),
    "of a restore": (
        [BESIDE.format("NULL").replace("action, ", "'records_restored', ")],
        [NOWHERE],
    ),
    "of a chained audit": (
        [BESIDE.format("NULL").replace("action, ", "'chain_audit', ")],
        [NOWHERE],
    ),
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("statements", "findings"), ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_row_that_is_added_where_none_can_stand_is_found(
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    statements: list[str],
    findings: list[tuple[str, int | None, str]],
    first: bool,
) -> None:
    """Whoever makes the table anew puts a row beside another one, or at no place: each is told by what is wrong,
    whether it stands before what was written or behind, and nothing of the others."""
    monkeypatch.setattr("fleetgate.proof.auditwalk._AT_ONCE", 2)
    ledger.tamper(*ANEW, *([*statements, BACK] if first else [BACK, *statements]))
    report = ledger.verify()
    told = [(finding.kind.value, finding.place, finding.what.split(":")[0]) for finding in report.findings]
    assert (told, report.rows) == (findings, NOTED + len(statements))


def test_whoever_reads_the_audit_sees_no_row_that_is_not_verified(ledger: Ledger) -> None:
    """Each row that is shown was counted; what stands at no place is shown as one that nobody can read."""
    ledger.tamper(*ANEW, BACK, *(BESIDE.format(place) for place in ("NULL", "'x'", "4.5", 4, 0)))
    shown = list_rows(ledger.gate.store, None, None, last=100)
    assert ledger.verify().rows == len(shown) == NOTED + 5
    assert [str(row) for row in shown if isinstance(row, Unreadable)] == [
        "a row of the audit without a place: it cannot be read: see `fleetgate verify audit`"
    ] * 3


INDEX = "CREATE INDEX shown ON audit (tenant, object, place, at_ms, actor, action, detail, hash)"


def test_an_index_that_has_a_row_more_than_the_table_is_found(ledger: Ledger) -> None:
    """The database answers from it whoever asks for one device: a row is shown that stands nowhere else."""
    forged = f"INSERT INTO audit SELECT {NOTED + 1}, at_ms, 'mallory', 'release', 'acme', 'device/car', detail, hash"
    aside = "CREATE TABLE aside AS SELECT * FROM sqlite_master WHERE name = 'shown'"
    hide = "DELETE FROM sqlite_master WHERE name = 'shown'"
    open_schema = "PRAGMA writable_schema = ON"
    ledger.tamper(INDEX, f"{forged} FROM audit WHERE place = 2", aside, open_schema, hide)
    ledger.tamper(f"DELETE FROM audit WHERE place = {NOTED + 1}")
    ledger.tamper(open_schema, "INSERT INTO sqlite_master SELECT * FROM aside", "PRAGMA schema_version = 9999")
    assert [row.place for row in list_rows(ledger.gate.store, "acme", "car", last=9)] == [NOTED + 1]
    [finding] = ledger.verify().findings
    assert (finding.kind, "in index shown" in finding.what) == ("altered", True)


CAREFUL = {
    "changed": (["UPDATE audit SET actor = 'mallory' WHERE place = 4"], [("altered", 6)]),
    "first changed": (["UPDATE audit SET actor = 'mallory' WHERE place = 1"], [("altered", 3)]),
    "missing": (["DELETE FROM audit WHERE place = 4"], [("altered", 6)]),
    "added": ([*SHIFT, ADD.format(5)], [("altered", 6)]),
    "reordered": (SWAP, [("altered", 6)]),
    "cut off": (["DELETE FROM audit WHERE place >= 5"], [("cut_off", 6)]),
}


@pytest.mark.parametrize(("statements", "findings"), CAREFUL.values(), ids=CAREFUL.keys())
@pytest.mark.parametrize("heads_too", [False, True])
def test_whoever_makes_the_hashes_anew_is_found_by_the_heads(
    ledger: Ledger, statements: list[str], findings: list[tuple[str, int | None]], heads_too: bool
) -> None:
    """Also one who takes them away in the database: the signer's log has them."""
    logged = ledger.logged()
    ledger.tamper(*statements, *(["DELETE FROM audit_heads"] if heads_too else []), careful=True)
    report = ledger.verify(logged if heads_too else None)
    assert [(finding.kind.value, finding.place) for finding in report.findings] == findings


def test_what_stands_behind_the_newest_head_can_be_changed_with_its_hash(ledger: Ledger) -> None:
    """Said in docs/explanation/proof-of-origin.md: nothing outside the database has seen it. It is told as unsigned."""
    ledger.tamper(f"UPDATE audit SET actor = 'mallory' WHERE place = {NOTED}", careful=True)
    report = ledger.verify()
    assert (report.findings, report.unsigned) == ([], NOTED - SIGNED)


def test_a_finding_tells_a_time_as_a_person_reads_it(ledger: Ledger) -> None:
    ledger.tamper("DELETE FROM audit WHERE place > 3")
    [finding] = ledger.verify().findings
    assert re.search(r"signed at \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ, and the audit ends at place 3", finding.what)


@pytest.mark.parametrize("change", ["place = 5", f"link = '{'ab' * 32}'", "signed_at_ms = 7", f"chain = '{'ab' * 32}'"])
def test_a_head_that_nobody_signed_is_a_finding(ledger: Ledger, change: str) -> None:
    """Its signature is over all of it."""
    ledger.tamper(f"UPDATE audit_heads SET {change} WHERE place = 6")
    assert [kind for kind, _ in ledger.found()] == ["signature"]


def test_a_row_that_is_no_head_ends_no_verification(ledger: Ledger) -> None:
    """It is told."""
    ledger.tamper("UPDATE audit_heads SET signature = 'x' WHERE place = 6")
    heads, [bad] = stored_heads(ledger.gate.store)
    assert ([signed.head.place for signed in heads], "is no head" in bad) == ([3], True)


def test_rows_that_stay_unsigned_are_a_finding(ledger: Ledger) -> None:
    """Load had ten minutes; a gate without a signer says so. A time to come is none that anybody wrote."""
    ledger.gate.clock.ms += 11 * 60_000
    assert ledger.found() == [("unsigned", NOTED)]
    assert ledger.verify(allowed=Allowed(unsigned=True)).findings == []
    ledger.gate.clock.ms -= 30 * 60_000
    assert ledger.found() == [("unsigned", NOTED)]


def test_of_many_broken_rows_the_first_are_told(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verification has an end, whatever was written."""
    monkeypatch.setattr("fleetgate.proof.auditwalk.MAX_FINDINGS", 2)
    ledger.tamper("UPDATE audit SET actor = 'mallory'")
    assert ledger.found() == [("altered", 1), ("altered", 2), ("altered", None)]


def test_an_empty_audit_of_which_nothing_is_signed_is_nothing_to_verify(gate: Gate, tmp_path: Path) -> None:
    """And no good answer."""
    with pytest.raises(NotFound):
        verify_audit(gate.store, [], read_public_key(Desk(tmp_path).public), Allowed())


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'x' WHERE place = 4",
        "DELETE FROM audit WHERE place = 8",
        "REPLACE INTO audit SELECT place, at_ms, 'x', action, tenant, object, detail, hash FROM audit WHERE place = 8",
        ADD.format(10),
        ADD.format(0),
    ],
)
def test_the_database_refuses_what_is_no_row_at_the_end(ledger: Ledger, statement: str) -> None:
    """A mistake of ours, or a hurried hand at the file, does not break the chain."""
    db = sqlite3.connect(ledger.gate.config.path("control.db"))
    with closing(db), pytest.raises(sqlite3.IntegrityError, match="of the audit"):
        db.execute(statement)


# What is signed


def test_a_round_signs_what_is_new_in_several_steps(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is bounded, and so is a round; a second one has nothing to do."""
    behind: list[int] = []
    monkeypatch.setattr(auditheads, "MAX_STEPS", 2)
    monkeypatch.setattr(auditheads, "MAX_ROWS", 4)
    ledger.note(3)
    assert sign_audit(ledger.gate.store, ledger.running.client, behind.append) == 2
    assert behind == [5, 3, 1]
    assert (ledger.sign(), ledger.sign()) == (1, 0)
    assert (ledger.verify().unsigned, ledger.found()) == (0, [])


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM audit WHERE place > 5", "rollback"),
        ("DELETE FROM audit WHERE place > 6", None),
        ("UPDATE audit SET actor = 'mallory' WHERE place = 4", "changed"),
        ("DELETE FROM audit WHERE place > 6 OR place = 2", "rollback"),
        ("DELETE FROM audit WHERE place > 6; UPDATE audit SET actor = 'mallory' WHERE place = 6", "fork"),
    ],
)
def test_an_audit_that_is_not_the_signed_one_gets_no_signature(
    ledger: Ledger, statement: str, reason: str | None
) -> None:
    """Whoever holds the database, and load, adds to it and never changes what was signed."""
    ledger.tamper(*statement.split("; "), careful=True)
    if reason is None:
        assert ledger.sign() == 0
        return
    with pytest.raises((SignerRefused, AuditChanged)) as refused:
        ledger.sign()
    assert getattr(refused.value, "reason", "changed") == reason


def test_rows_that_do_not_follow_are_not_signed(ledger: Ledger) -> None:
    """A break behind the newest head."""
    ledger.tamper("UPDATE audit SET actor = 'mallory' WHERE place = 7")
    with pytest.raises(AuditChanged, match="behind place 6"):
        ledger.sign()


def test_a_head_that_was_signed_and_not_kept_is_kept_in_the_next_round(ledger: Ledger) -> None:
    """The process ended in between; the signer gives it again."""
    ledger.tamper("DELETE FROM audit_heads WHERE place = 6")
    assert ledger.sign() == 1
    assert [signed.head.place for signed in stored_heads(ledger.gate.store)[0]] == [3, 6, 8]


def test_heads_of_segments_and_of_the_audit_are_told_apart(ledger: Ledger) -> None:
    """One log has both; the bytes that are signed begin differently."""
    from tests.unit.control.test_signer import digests, head

    ledger.desk.sign(head(1), digests(1, 1))
    lines = [line for line, _ in read_log(ledger.desk.log)]
    assert [line.audit is None for line in lines] == [False, False, True]
    [first, _] = ledger.logged()
    assert first.head.signed_bytes(1).startswith(b"fleetgate audit head 1\x00")
    ledger.desk.again()
    assert ledger.desk.signlog.newest_audit(first.head.chain) == ledger.logged()[-1]


# A database that was restored


def restored(ledger: Ledger, *, said: bool) -> None:
    """From a copy of when it had 5 rows."""
    ledger.tamper("DELETE FROM audit WHERE place > 5", "DELETE FROM audit_heads WHERE place > 5", careful=False)
    if said:
        say_restored(ledger)
    ledger.note(2)


def say_restored(ledger: Ledger) -> str:
    """The name of the chain that begins."""
    last = ledger.running.client.newest_audit()
    with ledger.gate.store.write("somebody") as write:
        begin_anew(write, "the disk died; copy of last night", last)
    found = chain_of(ledger.gate.store)
    assert found is not None
    return found[0]


def test_a_restored_database_is_signed_again_once_a_person_says_so(ledger: Ledger) -> None:
    """As a new chain; the former one is not forgotten."""
    restored(ledger, said=False)
    with pytest.raises((SignerRefused, AuditChanged)):
        ledger.sign()
    name = say_restored(ledger)
    assert ledger.sign() == 1
    assert ledger.logged()[-1].head.place == 8
    assert ledger.verify(allowed=Allowed(restored=name)).findings == []


def test_what_a_restored_database_lost_is_a_finding_until_that_is_allowed(ledger: Ledger) -> None:
    """An attacker can say that it was restored, too: whoever verifies has to know of it."""
    restored(ledger, said=True)
    ledger.sign()
    report = ledger.verify(ledger.logged())
    assert [finding.kind for finding in report.findings] == ["altered"]
    assert "place 6 says that the records were restored" in report.notes[-1]
    name = report.notes[-1].split("--restored ")[1].split()[0]
    report = ledger.verify(ledger.logged(), Allowed(restored=name))
    assert (report.findings, report.unsigned) == ([], 0)
    assert "up to place 6" in report.notes[0]


REWRITINGS = {
    "a row before": ["UPDATE audit SET actor = 'mallory' WHERE place = 2"],
    "a row less": ["DELETE FROM audit WHERE place = 3", "UPDATE audit SET place = place - 1 WHERE place > 3"],
    "a row since": ["UPDATE audit SET actor = 'mallory' WHERE place = 7"],
    "both": ["UPDATE audit SET actor = 'mallory' WHERE place IN (2, 7)"],
    "the row itself": ["UPDATE audit SET detail = '{}' WHERE place = 6"],
    "an end": ["DELETE FROM audit WHERE place > 6"],
    "no restore": ["DELETE FROM audit WHERE place > 5"],
}


@pytest.mark.parametrize("statements", REWRITINGS.values(), ids=REWRITINGS.keys())
def test_what_is_allowed_to_a_restored_database_is_what_the_restore_cost(ledger: Ledger, statements: list[str]) -> None:
    """Nothing of what was kept, and nothing of what was signed since; and the signer signs none of it."""
    restored(ledger, said=True)
    ledger.sign()
    [name] = {signed.head.chain for signed in ledger.logged()[2:]}
    ledger.tamper(*statements, careful=True)
    with pytest.raises((SignerRefused, AuditChanged)):
        ledger.sign()
    assert ledger.verify(ledger.logged(), Allowed(restored=name)).findings != []


def test_whoever_says_himself_that_the_records_were_restored_is_found_by_who_knows_better(ledger: Ledger) -> None:
    """The signer takes a person's word in the database; who knows which restores there were gives the name of the
    newest."""
    restored(ledger, said=True)
    ledger.sign()
    name = ledger.logged()[-1].head.chain
    ledger.tamper("UPDATE audit SET actor = 'mallory' WHERE place = 7", careful=True)
    his = say_restored(ledger)
    assert ledger.sign() == 1
    [finding] = ledger.verify(ledger.logged(), Allowed(restored=name)).findings
    assert finding.kind == "altered"
    assert ledger.verify(ledger.logged(), Allowed(restored=his)).findings == []


def test_a_second_restore_lets_pass_what_the_first_one_cost(ledger: Ledger) -> None:
    """Also from a copy that does not know of the first: its row has the name of what was signed last."""
    restored(ledger, said=True)
    ledger.sign()
    ledger.tamper("DELETE FROM audit WHERE place > 4", "DELETE FROM audit_heads WHERE place > 4")
    ledger.desk.clock.ms += 1
    name = say_restored(ledger)
    assert ledger.sign() == 1
    assert ledger.verify(ledger.logged(), Allowed(restored=name)).findings == []


def test_a_chain_that_ended_is_not_gone_on_with(ledger: Ledger) -> None:
    """The rows of before the restore in their place again, and others behind them: two audits would be signed."""
    kept = "CREATE TABLE kept AS SELECT * FROM audit"
    ledger.tamper(kept)
    restored(ledger, said=True)
    ledger.sign()
    ledger.tamper("DELETE FROM audit", "INSERT INTO audit SELECT * FROM kept")
    with pytest.raises(SignerRefused, match="another one began"):
        ledger.sign()


def test_the_row_of_an_earlier_release_lets_pass_what_was_signed_until_it_was_written(ledger: Ledger) -> None:
    """It does not say what was signed last."""
    ledger.gate.clock.ms = ledger.desk.clock.ms
    restored(ledger, said=True)
    ledger.tamper('UPDATE audit SET detail = \'{"reason":"the disk died"}\' WHERE place = 6', careful=True)
    found = chain_of(ledger.gate.store)
    assert found is not None
    with pytest.raises(SignerRefused, match="does not say that it follows"):
        ledger.sign()  # an earlier signer did
    report = ledger.verify(ledger.logged(), Allowed(restored=found[0]))
    assert (report.findings, "at place 6" in report.notes[0]) == ([], True)


def test_a_name_that_no_restore_has_is_a_finding(ledger: Ledger) -> None:
    """What its owner knows of is not in the audit."""
    report = ledger.verify(allowed=Allowed(restored="ab" * 32))
    assert [finding.kind for finding in report.findings] == ["altered"]


def test_a_chain_is_named_by_the_row_it_began_with(ledger: Ledger) -> None:
    """So a new database in the place of the old one has no head that fits; the signer signs none of it before a person
    says so."""
    ledger.tamper("UPDATE audit SET actor = 'another' WHERE place = 1", careful=True)
    with pytest.raises(SignerRefused, match="does not say that it follows"):
        ledger.sign()
    assert [kind for kind, _ in ledger.found()] == ["altered"]
    say_restored(ledger)
    assert ledger.sign() == 1
