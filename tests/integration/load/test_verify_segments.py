"""Whatever is taken from, put into or changed in ClickHouse is found; what load, repair and time do is not."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.load.audit import Audit
from tests.integration.load.conftest import WRITER, Bench
from tests.integration.load.test_exactly_once import Flaky, Killed, deadly, fill
from tests.integration.load.test_poison import POISON, refusing
from tests.integration.load.test_poison import fill as fill_with_poison
from tests.integration.load.test_retry import damaged_twice, refuse, repair, retry
from tests.integration.load.test_rows_hash import fill_with_everything
from tests.segments import DAY_MS, RECEIVED_AT

from fleetgate.catalogue import catalogue
from fleetgate.clock import SystemClock
from fleetgate.control.auditkey import make_audit_key
from fleetgate.control.heads import NO_LINK, next_link, read_public_key
from fleetgate.control.signlog import count_of
from fleetgate.durable import replace_durably
from fleetgate.errors import ConfigError, NotFound
from fleetgate.load.chain import ChainRow, chain_rows
from fleetgate.load.clickhouse import ServerClickHouse
from fleetgate.load.heads import heads_table
from fleetgate.load.migrations import migrate
from fleetgate.load.owner import Owner
from fleetgate.load.rowshash import hash_query
from fleetgate.proof.findings import Report
from fleetgate.proof.heads import beside_one_another, read_export, sort_out, stored_heads
from fleetgate.proof.rows import Keeping
from fleetgate.proof.segments import Scope, twice, verify_segments
from fleetgate.spool.identity import Identity
from fleetgate.spool.writer import Writer


@pytest.fixture
def audit(bench: Any, tmp_path: Path) -> Audit:
    """Three segments of a spool, loaded and signed. All of one day, and each loaded before the next is there: that
    takes ClickHouse half the time."""
    found = Audit(bench, tmp_path)
    for number in range(3):
        fill(bench, f"car-{number}", apart_ms=1000)
        bench.load_all()
    found.sign()
    return found


def test_text_that_is_not_utf8_ends_no_verification(audit: Audit) -> None:
    """Bytes that load never writes, wherever they stand: each is told, and load and its rounds go on."""
    put = "INSERT INTO {0} SELECT * REPLACE (unhex('ff') AS {1}) FROM (SELECT * FROM {0} WHERE spool = '{2}' LIMIT 1)"
    clickhouse = audit.bench.clickhouse
    for table, column in product(("segments", "segment_heads"), ("spool", "sha256", "link")):
        clickhouse.command(put.format(table, column, audit.spool))
    clickhouse.command(put.format("events", "spool", audit.spool))
    key, keeping = read_public_key(audit.public), Keeping(SystemClock().now_ms(), 7)
    try:
        heads, bad = stored_heads(clickhouse)
        assert [sum(spool in why for why in bad) for spool in ("\ufffd", audit.spool)] == [1, 2]
        found = verify_segments(clickhouse, heads, key, keeping, Scope()).findings
        assert {"\ufffd", audit.spool} <= {f.spool for f in found}
        audit.bench.restart()
        (audit.bench.spool.directory / "cursor.json").unlink()
        fill(audit.bench, "behind")
        audit.bench.load_all()
        audit.sign()
    finally:  # the tables are those of other tests too
        for table in ("segments", "segment_heads", "events"):
            bad_text = "unhex('ff') IN (spool, sha256, link)" if table != "events" else "spool = unhex('ff')"
            clickhouse.command(f"ALTER TABLE {table} DELETE WHERE {bad_text} SETTINGS mutations_sync = 2")


def test_what_is_as_it_was_loaded_has_no_findings(audit: Audit) -> None:
    """All rows hashed, one head signed, nothing behind it, nothing to remark."""
    report = audit.verify()
    assert (report.findings, report.notes) == ([], [])
    assert (report.spools, report.segments, report.rows, report.heads, report.unsigned) == (1, 3, 30, 1, 0)


ONE = "spool = {spool} AND segment = 2"
TAMPERING = [
    ("events", f"DELETE WHERE {ONE} AND event_index = 1", [("missing", 2, "events")]),
    ("events", f"DELETE WHERE {ONE}", [("missing", 2, "events")]),
    ("held_events", f"DELETE WHERE {ONE}", [("missing", 2, "held_events")]),
    ("rejections", f"DELETE WHERE {ONE}", [("missing", 2, "rejections")]),
    ("raw_messages", f"DELETE WHERE {ONE} AND outcome = 'held'", [("missing", 2, "raw_messages")]),
    ("events", f"UPDATE signal_values = [51.] WHERE {ONE} AND event_index = 1", [("altered", 2, "events")]),
    ("events", f"UPDATE flags = 2 WHERE {ONE} AND event_index = 1", [("altered", 2, "events")]),
    ("events", f"UPDATE software = 'x' WHERE {ONE} AND event_index = 1", [("altered", 2, "events")]),
    ("events", f"UPDATE decision = 'x' WHERE {ONE} AND event_index = 1",
     [("missing", 2, "events"), ("added", 2, "events")]),
    ("held_events", f"UPDATE sent_at = addSeconds(sent_at, 1) WHERE {ONE}", [("altered", 2, "held_events")]),
    ("rejections", f"UPDATE refused = 1 WHERE {ONE}", [("altered", 2, "rejections")]),
    ("raw_messages", f"UPDATE envelope = '' WHERE {ONE}", [("altered", 2, "raw_messages")]),
    ("received_ranges", f"DELETE WHERE {ONE}", [("missing", 2, "received_ranges")]),
    ("received_ranges", f"UPDATE last_seq = last_seq + 1 WHERE {ONE} AND outcome = 'accepted'",
     [("altered", 2, "received_ranges")]),
    ("received_ranges", f"UPDATE outcome = 'before_ledger' WHERE {ONE} AND outcome = 'held'",
     [("altered", 2, "received_ranges")]),
    ("received_ranges", f"UPDATE vehicle_id = 'x' WHERE {ONE}", [("altered", 2, "received_ranges")]),
    ("received_ranges", f"UPDATE first_received_at = subtractSeconds(received_at, 9) WHERE {ONE}",
     [("altered", 2, "received_ranges")]),
    ("segments", f"UPDATE damaged = 1 WHERE {ONE}", [("altered", 2, None)]),
    ("segments", f"UPDATE sha256 = repeat('0', 64) WHERE {ONE}", [("altered", 2, None), ("altered", 3, None)]),
    ("segments", "UPDATE link = repeat('0', 64) WHERE spool = {spool} AND segment = 3",
     [("altered", 3, None), ("altered", 3, None)]),
    ("segments", f"UPDATE link = 'no link' WHERE {ONE}", [("altered", 2, None), ("altered", 3, None)]),
    ("segments", "DELETE WHERE spool = {spool} AND segment = 3", [("cut_off", 3, None)]),
    ("segment_heads", "UPDATE signature = repeat('0', 128) WHERE spool = {spool}", [("signature", 3, None)]),
    ("segment_heads", "UPDATE signed_at = addSeconds(signed_at, 1) WHERE spool = {spool}", [("signature", 3, None)]),
    ("segment_heads", "UPDATE key_id = repeat('0', 64) WHERE spool = {spool}", [("signature", 3, None)]),
]  # fmt: skip


@pytest.mark.parametrize(("table", "change", "expected"), TAMPERING, ids=[f"{t}-{c[:30]}" for t, c, _ in TAMPERING])
def test_tampering_is_found_where_it_was_done(audit: Audit, table: str, change: str, expected: Any) -> None:
    """The kind, the segment and the table are named; other segments stay good."""
    audit.tamper(table, change) if "UPDATE signed_at" not in change else _heads_at(audit, 1000)
    found = [item for item in audit.found() if not (table == "segments" and item[2])]  # rows are then strangers too
    assert found == expected


def _heads_at(audit: Audit, later_ms: int) -> None:
    """signed_at is in the partition key, which a mutation may not change: the rows are put there anew."""
    heads = audit.heads()
    audit.tamper("segment_heads", "DELETE WHERE spool = {spool}")
    moved = [msgspec.structs.replace(signed, signed_at=signed.signed_at + later_ms) for signed in heads]
    audit.bench.clickhouse.insert("segment_heads", heads_table(moved), f"moved-{audit.spool}")


def test_an_added_row_is_found(audit: Audit) -> None:
    """A row twice, and one of a segment or a spool that never was."""
    row = "SELECT * FROM events WHERE spool = '{}' AND segment = 2 LIMIT 1"
    copy = "INSERT INTO events SELECT * REPLACE ({} AS segment) FROM (" + row + ")"
    audit.bench.clickhouse.command(copy.format(2, audit.spool))
    assert audit.found() == [("added", 2, "events")]
    audit.bench.clickhouse.command(copy.format(0, audit.spool))
    assert audit.found() == [("added", 2, "events"), ("added", 0, "events")]


def test_a_missing_segment_is_found_with_its_rows_or_without(audit: Audit) -> None:
    """Its row is gone from the chain, its number from the numbers, and its rows belong to nobody."""
    audit.tamper("segments", f"DELETE WHERE {ONE}")
    found = audit.found()
    assert found[:2] == [("missing", None, None), ("missing", 2, None)]
    assert set(found[2:]) == {("added", 2, table) for table in (*TABLES, "received_ranges")}
    for table in (*TABLES, "received_ranges"):
        audit.tamper(table, f"DELETE WHERE {ONE}")
    assert audit.found() == [("missing", None, None), ("missing", 2, None)]


TABLES = ("events", "held_events", "rejections", "raw_messages")


def forge(audit: Audit, keep: int) -> None:
    """The chain as an attacker who knows how it is made would leave it: the first `keep` rows, every link right."""
    where, order = "spool = {spool:String}", "place"
    rows: list[ChainRow] = chain_rows(audit.bench.clickhouse, where, {"spool": audit.spool}, order)[:keep]
    audit.tamper("segments", "DELETE WHERE spool = {spool}")
    link = NO_LINK
    for row in rows:
        changed = msgspec.structs.replace(row, events=row.events - (row.segment == 2))
        link = next_link(link, changed.digest())
        _insert(audit, msgspec.structs.replace(changed, link=link))


def _insert(audit: Audit, row: ChainRow, loaded_at: int | None = None) -> None:
    from fleetgate.load.chain import _arrow

    at_ms = SystemClock().now_ms() if loaded_at is None else loaded_at
    audit.bench.clickhouse.insert("segments", _arrow(row, at_ms), f"forged-{row.digest().hex()}")


def test_a_chain_that_was_made_anew_is_not_what_was_signed(audit: Audit) -> None:
    """Every link fits, the counts fit the rows: only the signature says that it was otherwise."""
    audit.tamper("events", f"DELETE WHERE {ONE} AND event_index = 1")
    forge(audit, keep=3)
    assert ("altered", 3, None) in audit.found()
    assert [f.segment for f in audit.verify(heads=[]).findings if f.table is None] == []


def test_a_cut_with_its_heads_is_seen_by_heads_kept_elsewhere(audit: Audit) -> None:
    """Newest segments, their rows and their heads are gone: ClickHouse alone cannot know, an export or the log can."""
    elsewhere = audit.heads()
    fill(audit.bench, "later")
    audit.bench.load_all()
    audit.sign()
    newer = audit.heads()
    for table in (*TABLES, "received_ranges", "segments"):
        audit.tamper(table, "DELETE WHERE spool = {spool} AND segment >= 3")
    audit.tamper("segment_heads", "DELETE WHERE spool = {spool}")
    assert audit.found() == []
    for heads in (elsewhere, newer):
        assert [f.kind.value for f in audit.verify(heads).findings] == ["cut_off"]


def test_what_was_loaded_since_the_newest_head_is_told(audit: Audit) -> None:
    """It is no finding, and nobody should take it for proved."""
    fill(audit.bench, "since")
    audit.bench.load_all()
    report = audit.verify()
    assert (report.findings, report.unsigned) == ([], 1)
    assert "nothing outside ClickHouse vouches" in report.notes[0]


def test_signed_bytes_that_came_of_age_are_no_finding(audit: Audit) -> None:
    """ClickHouse drops them after raw_days; a day before they are missing."""
    audit.tamper("raw_messages", "DELETE WHERE spool = {spool}")
    expired = audit.verify(now_ms=RECEIVED_AT + 8 * DAY_MS)
    assert expired.findings == []
    assert "gone by age" in expired.notes[0]
    assert len(audit.verify(now_ms=RECEIVED_AT + 6 * DAY_MS).findings) == 3


def test_age_excuses_no_single_row(audit: Audit) -> None:
    """A part goes as a whole: what is left of a day, forged or not, shows that the others were taken."""
    audit.tamper(
        "raw_messages",
        f"DELETE WHERE {ONE} AND record_offset = (SELECT min(record_offset) FROM raw_messages WHERE {ONE})",
    )
    report = audit.verify(now_ms=RECEIVED_AT + 8 * DAY_MS)
    assert [(f.kind.value, f.segment, f.table) for f in report.findings] == [("missing", 2, "raw_messages")]


def test_only_some_segments_may_be_hashed(audit: Audit) -> None:
    """The chain is checked whole all the same."""
    audit.tamper("events", f"DELETE WHERE {ONE}")
    assert audit.verify(first=3).findings == []
    assert [f.segment for f in audit.verify(first=2, last=2).findings] == [2]


def test_a_segment_completed_after_a_repair_has_no_findings(bench: Any, tmp_path: Path) -> None:
    """Two rows, the second behind the first: counts add up, the hashes are those of all rows together."""
    audit = Audit(bench, tmp_path)
    fill(bench, "before")
    damaged_twice(bench, "mended")
    fill(bench, "behind")
    bench.load_all()
    audit.sign()
    assert audit.found() == []
    repair(bench)
    retry(bench, 2)
    audit.sign()
    report = audit.verify()
    assert (report.findings, report.heads, report.unsigned) == ([], 2, 0)
    rows = chain_rows(bench.clickhouse, "spool = {s:String}", {"s": audit.spool}, "place")
    assert [(row.place, row.segment) for row in rows] == [(1, 1), (2, 2), (3, 3), (4, 2)]
    assert (rows[3].previous_sha256, rows[3].replaces) == (rows[1].sha256, [rows[1].sha256])
    audit.tamper("events", f"DELETE WHERE {ONE} AND signal_values[1] = 4")
    assert audit.found() == [("missing", 2, "events")]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("table", ["events", "raw_messages", "segments"])
def test_a_completion_that_was_killed_counts_what_it_added(bench: Any, tmp_path: Path, table: str, when: str) -> None:
    """What an earlier try inserted is counted by the row of the later one; the chain has no gap and no fork."""
    audit = Audit(bench, tmp_path)
    damaged_twice(bench, f"{table}-{when}-killed")
    bench.load_all()
    repair(bench)
    real, bench.clickhouse = bench.clickhouse, deadly(bench.clickhouse, table, when)
    with pytest.raises(Killed):
        retry(bench)
    bench.clickhouse = real
    bench.restart()
    bench.load_all()
    fill(bench, "behind")
    bench.load_all()
    audit.sign()
    report = audit.verify()
    assert (report.findings, report.unsigned, report.segments) == ([], 0, 2)


def test_a_parked_segment_is_a_note_where_the_spool_is_at_hand(bench: Any, tmp_path: Path) -> None:
    """Without the spool its number is missing; when it is loaded at last all is good."""
    audit = Audit(bench, tmp_path)
    fill(bench, "one")
    fill(bench, "two-poison")
    fill(bench, "three")
    refuse(bench, "signal_minute", bench.load_all)  # a view's table: then nothing can be told apart
    audit.sign()
    assert ("missing", 2, None) in audit.found()
    parked = audit.verify(parked=frozenset({(audit.spool, 2)}))
    assert parked.findings == []
    assert "parked" in parked.notes[0]
    retry(bench, 2)
    audit.sign()
    assert audit.found() == []


def test_a_repaired_segment_that_was_unreadable_fits_the_chain(bench: Any, tmp_path: Path) -> None:
    """The segment behind it names the damaged file, which the repaired one says that it replaced."""
    audit = Audit(bench, tmp_path)
    for name in ("a", "b", "c"):
        fill(bench, name)
    path = bench.spool.directory / "segments" / f"{2:020d}.seg"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    data[-1] ^= 1
    path.write_bytes(data)
    bench.load_all()
    repair(bench)
    retry(bench, 2)
    audit.sign()
    assert audit.found() == []


def test_a_lost_answer_leaves_one_row_of_the_chain(bench: Any, tmp_path: Path) -> None:
    """ClickHouse wrote the row and the connection broke: the next row follows it, not a twin."""
    audit = Audit(bench, tmp_path)
    fill(bench, "lost-1")
    fill(bench, "lost-2")
    flaky = Flaky(bench.clickhouse)
    flaky.breaks["segments"] = "after"
    bench.restart(flaky)
    bench.load_all()
    audit.sign()
    report = audit.verify()
    assert (report.findings, report.segments) == ([], 2)


def test_load_goes_on_without_a_signer_and_says_so(audit: Audit) -> None:
    """The metric is 1 until the signer is back, which then signs what was loaded meanwhile."""
    fill(audit.bench, "away")
    audit.bench.load_all()
    audit.round()
    assert audit.counts.signer_away._value.get() == 1
    audit.sign()
    assert (audit.counts.signer_away._value.get(), audit.verify().unsigned) == (0, 0)


@pytest.mark.parametrize("restarted", [False, True])
def test_rows_that_were_changed_before_they_were_signed_are_not_signed(audit: Audit, restarted: bool) -> None:
    """Load remembers what it wrote; a new process still has the links."""
    fill(audit.bench, "new-1")
    fill(audit.bench, "new-2")
    audit.bench.load_all()
    audit.tamper("segments", "UPDATE events = 2 WHERE spool = {spool} AND segment = 4")
    if restarted:
        audit.bench.restart()
    audit.sign()
    assert audit.counts.heads_refused.labels("changed")._value.get() == 1
    assert len(audit.heads()) == 1


def test_a_chain_that_was_rolled_back_is_not_signed(audit: Audit) -> None:
    """A ClickHouse restored from a backup lacks what was signed: the signer says rollback."""
    audit.tamper("segments", "DELETE WHERE spool = {spool} AND segment = 3")
    audit.bench.restart()
    audit.sign()
    assert audit.counts.heads_refused.labels("rollback")._value.get() == 1


def test_a_long_absence_is_made_up_in_steps(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows than one request may have: several heads, one behind the other."""
    monkeypatch.setattr("fleetgate.load.heads.MAX_STEPS", 2)
    audit = Audit(bench, tmp_path)
    for number in range(5):
        fill(bench, f"many-{number}")
    bench.load_all()
    audit.sign()
    assert [signed.head.place for signed in audit.heads()] == [2, 4, 5]
    assert audit.found() == []


def test_the_thread_signs_a_last_time_at_its_end(bench: Any, tmp_path: Path) -> None:
    """SIGTERM leaves nothing unsigned."""
    from fleetgate.load.heads import Heads
    from fleetgate.load.steady import rounds

    audit = Audit(bench, tmp_path)
    fill(bench, "last")
    threads = threading.active_count()
    heads = Heads(bench.spool.directory, audit.client, bench.clickhouse, bench.inserts.chain, audit.counts)
    with audit.signer(), rounds("heads", heads.round):
        bench.load_all()
    assert threading.active_count() == threads
    assert audit.verify().unsigned == 0


def test_rows_that_clickhouse_refused_are_in_no_hash_until_they_come(bench: Any, tmp_path: Path) -> None:
    """Refused in part: what is there fits. Retried with one still refused, then with none: two more rows of the chain,
    and the hashes of the last are those of all."""
    audit = Audit(bench, tmp_path)
    with refusing(bench.clickhouse, f"{POISON} AND seq IN (5, 300)"):
        fill_with_poison(bench, 5, 300)
        bench.load_all()
    audit.sign()
    assert audit.found() == []
    with refusing(bench.clickhouse, f"{POISON} AND seq = 300"):
        retry(bench)
    assert audit.found() == []
    retry(bench)
    audit.sign()
    assert audit.found() == []
    [[rows]] = bench.clickhouse.rows(
        "SELECT count() FROM segments WHERE spool = {s:String}", {"s": bench.spool.identity.hex()}
    )
    assert rows == 3
    audit.tamper("events", "DELETE WHERE spool = {spool} AND seq = 300 AND event_index = 1")
    assert audit.found() == [("missing", 1, "events")]


def append(audit: Audit, segment: int, **changes: Any) -> None:
    """A row behind the chain's end, as somebody would make it who may write into ClickHouse and knows the form."""
    rows = chain_rows(audit.bench.clickhouse, "spool = {s:String}", {"s": audit.spool}, "place")
    before = [row for row in rows if row.segment == segment][-1]
    none: dict[str, Any] = {**dict.fromkeys((*TABLES, "received_ranges", "messages"), 0), "place": rows[-1].place + 1}
    row = msgspec.structs.replace(before, **(none | {"previous_sha256": before.sha256} | changes))
    _insert(audit, msgspec.structs.replace(row, link=next_link(rows[-1].link, row.digest())))


def stored_hash(audit: Audit, table: str, segment: int) -> str:
    query = hash_query(table)
    [[_, _, text]] = audit.bench.clickhouse.rows(query, {"spool": audit.spool, "first": segment, "last": segment})
    return str(text)


@pytest.mark.parametrize("absent", [[], [(0, 2**63 - 1)]], ids=["nothing came since", "all came since"])
def test_no_appended_row_hides_a_change(audit: Audit, absent: Any) -> None:
    """A row with the new hash of a changed segment fits what is stored; the one that was signed does not."""
    audit.tamper("events", f"UPDATE signal_values = [51.] WHERE {ONE} AND event_index = 1")
    append(audit, 2, events_hash=stored_hash(audit, "events", 2), events_absent=absent)
    assert audit.found() == [("altered", 2, "events")]


def test_a_change_of_what_was_there_before_a_completion_is_found(bench: Any, tmp_path: Path) -> None:
    """Of a segment with two rows both are compared: also when the second is made to fit."""
    audit = Audit(bench, tmp_path)
    damaged_twice(bench, "mended-and-changed")
    bench.load_all()
    repair(bench)
    retry(bench)
    audit.sign()
    rows = chain_rows(bench.clickhouse, "spool = {s:String}", {"s": audit.spool}, "place")
    spans = {table: getattr(rows[0], f"{table}_absent") for table in TABLES}
    assert all(spans.values())
    [[at]] = bench.clickhouse.rows("SELECT min(record_offset) FROM events WHERE spool = {s:String}", {"s": audit.spool})
    assert not any(first <= int(at) <= last for first, last in spans["events"])
    audit.tamper("events", f"UPDATE software = 'x' WHERE spool = {{spool}} AND record_offset = {at}")
    append(audit, 1, events_hash=stored_hash(audit, "events", 1))
    assert set(audit.found()) == {("altered", 1, "events")}


def refused_as_changed(audit: Audit) -> float:
    return float(audit.counts.heads_refused.labels("changed")._value.get())


def test_what_load_did_not_write_gets_no_signature(audit: Audit) -> None:
    """A row appended while load was away: load goes on, and asks for no signature, after the next restart too."""
    signed = len(audit.heads())
    append(audit, 2)
    for number in range(2):
        audit.bench.restart()
        fill(audit.bench, f"behind-{number}")
        audit.bench.load_all()
        audit.sign()
        assert (len(audit.heads()), refused_as_changed(audit)) == (signed, number + 1)
    assert audit.bench.count("segments") == 6


def test_rows_that_were_taken_away_get_no_signature(audit: Audit) -> None:
    """Back to the signed head exactly: the signer would see nothing wrong, load remembers that there was more."""
    for number in range(2):
        fill(audit.bench, f"unsigned-{number}")
    audit.bench.load_all()
    audit.tamper("segments", "DELETE WHERE spool = {spool} AND segment > 3")
    audit.bench.restart()
    fill(audit.bench, "behind")
    audit.bench.load_all()
    audit.sign()
    assert (len(audit.heads()), refused_as_changed(audit)) == (1, 1)


@pytest.mark.parametrize("unsigned", [0, 1])
def test_a_lost_memory_is_made_anew_at_the_signed_head_only(audit: Audit, unsigned: int) -> None:
    """Without `chain.json` the end of the chain is taken over if it is what the signer signed last."""
    for number in range(unsigned):
        fill(audit.bench, f"unsigned-{number}")
    audit.bench.load_all()
    (audit.bench.spool.directory / "chain.json").unlink()
    audit.bench.restart()
    fill(audit.bench, "behind")
    audit.bench.load_all()
    audit.bench.restart()
    audit.sign()
    assert (len(audit.heads()), refused_as_changed(audit)) == ((1, 1) if unsigned else (2, 0))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_load_that_was_killed_at_its_row_goes_on_being_signed(audit: Audit, when: str) -> None:
    """Whether the insert got through or not: the end is the row remembered, or the one before it."""
    fill(audit.bench, "killed")
    audit.bench.restart(deadly(audit.bench.clickhouse, "segments", when))
    with pytest.raises(Killed):
        audit.bench.load_all()
    audit.bench.restart()
    audit.bench.load_all()
    audit.sign()
    assert (len(audit.heads()), refused_as_changed(audit), audit.found()) == (2, 0, [])


LATER_MS = 3_600_000


def rename(audit: Audit) -> str:
    """Gives the spool a new identity, as a repair does; the new one."""
    new = sha256(audit.spool.encode()).hexdigest()[:32]
    replace_durably(audit.bench.spool.directory / "identity", Identity(new, 0, [audit.spool]).packed())
    return new


def gauge(audit: Audit) -> float:
    return float(audit.counts.unsigned._value.get())


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_loaded_of_a_former_identity_is_signed(audit: Audit, restarted: bool) -> None:
    """Segments that were written before the spool got a new one are loaded after it."""
    fill(audit.bench, "late")
    rename(audit)
    if restarted:
        audit.bench.restart()
    audit.bench.load_all()
    audit.round()
    audit.sign()
    report = audit.verify(now_ms=SystemClock().now_ms() + LATER_MS)
    assert (report.findings, report.heads, report.unsigned, gauge(audit)) == ([], 2, 0, 0)


def test_a_former_chain_in_doubt_is_no_alarm_and_holds_up_nothing(audit: Audit) -> None:
    """The new identity was the remedy: its chain is signed."""
    append(audit, 2)
    new = rename(audit)
    audit.bench.restart()
    fill(audit.bench, "of-the-former")
    audit.bench.load_all()
    audit.bench.spool.writer = Writer(audit.bench.spool.directory, bytes.fromhex(new), 5, SystemClock(), os.urandom)
    audit.bench.spool._senders.clear()
    fill(audit.bench, "of-the-new")
    audit.bench.load_all()
    audit.sign()
    assert (len(audit.heads()), refused_as_changed(audit), gauge(audit)) == (1, 0, 0)
    assert [signed.head.segment for signed in stored_heads(audit.bench.clickhouse, new).heads] == [5]


def test_rows_of_refused_numbers_are_compared_with_the_refusals(bench: Any, tmp_path: Path) -> None:
    """The ledger says of refused numbers what `rejections` says."""
    audit = Audit(bench, tmp_path)
    fill_with_everything(bench.spool, bench.vehicle, random.Random(1))
    bench.spool.seal()
    bench.load_all()
    audit.sign()
    assert audit.found() == []
    audit.tamper("received_ranges", "UPDATE reason = 'rate_limited' WHERE spool = {spool} AND outcome = 'refused'")
    assert audit.found() == [("altered", 1, "received_ranges")]


def copy_events(audit: Audit, segment: int, received_at: str = "received_at") -> None:
    audit.bench.clickhouse.command(
        f"INSERT INTO events SELECT * REPLACE ({segment} AS segment, {received_at} AS received_at) "
        f"FROM (SELECT * FROM events WHERE spool = '{audit.spool}' AND segment = 2 LIMIT 1)"
    )


def test_rows_above_the_newest_segment_are_no_excuse(audit: Audit) -> None:
    """Only the one that load has in hand may be in part there: by its cursor, or else as long as its rows are fresh."""
    copy_events(audit, 4)
    assert audit.found() == [("added", 4, "events")]
    assert audit.verify(in_hand={audit.spool: 4}).findings == []
    assert [f.segment for f in audit.verify(in_hand={audit.spool: 5}).findings] == [4]
    audit.tamper("events", "DELETE WHERE spool = {spool} AND segment = 4")
    copy_events(audit, 4, received_at="now64(3)")
    assert audit.found() == []
    copy_events(audit, 5, received_at="now64(3)")
    assert audit.found() == [("added", 5, "events")]


def test_an_idle_gate_has_no_segment_in_hand(audit: Audit) -> None:
    """Nothing is sealed: then rows of no number are being loaded, of segment 0 least of all."""
    copy_events(audit, 0)
    assert [(f.kind.value, f.segment) for f in audit.verify(in_hand={audit.spool: None}).findings] == [("added", 0)]
    assert audit.found() == [("added", 0, "events")]


def test_a_spool_that_nobody_signed_is_found(bench: Any, tmp_path: Path) -> None:
    """For ten minutes load may not have had it signed; a row from the time to come is none of load's."""
    audit = Audit(bench, tmp_path)
    fill(bench, "invented")
    bench.load_all()
    now_ms = SystemClock().now_ms()
    assert audit.found() == []
    for at_ms in (now_ms + LATER_MS, now_ms - LATER_MS):
        assert [f.kind.value for f in audit.verify(now_ms=at_ms).findings] == ["unsigned"]
    assert audit.verify(now_ms=now_ms + LATER_MS, unsigned=True).findings == []


def test_rows_without_a_place_beside_a_chain_are_found(audit: Audit) -> None:
    """The chain began with segment 1: there was nothing before it."""
    rows = chain_rows(audit.bench.clickhouse, "spool = {s:String}", {"s": audit.spool}, "place")
    _insert(audit, msgspec.structs.replace(rows[0], segment=0, place=0, link="", previous_sha256=""))
    assert ("added", 0, None) in audit.found()


def test_rows_without_a_place_need_somebody_to_say_so(audit: Audit) -> None:
    """A spool of an older version has no chain; one that was put there looks the same."""
    rows = chain_rows(audit.bench.clickhouse, "spool = {s:String}", {"s": audit.spool}, "place")
    for table in ("segments", "segment_heads"):
        audit.tamper(table, "DELETE WHERE spool = {spool}")
    for row in rows:
        _insert(audit, msgspec.structs.replace(row, place=0, link=""), RECEIVED_AT)
    assert audit.found() == [("unsigned", None, None)]
    assert audit.verify(unsigned=True).findings == []


@pytest.mark.parametrize("scope", [{"first": 9}, {"first": 100, "last": 200}])
def test_a_scope_of_nothing_is_no_success(audit: Audit, scope: Any) -> None:
    """Nothing was verified, and that is said."""
    with pytest.raises(NotFound, match="nothing was verified"):
        audit.verify(**scope)


def test_a_spool_that_is_not_there_is_no_success(bench: Any, tmp_path: Path) -> None:
    """A name with a mistake in it must not look good."""
    with pytest.raises(NotFound, match="nothing was verified"):
        Audit(bench, tmp_path).verify()


def test_more_strangers_than_are_named_are_told(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first are named, and that there are others."""
    monkeypatch.setattr("fleetgate.proof.rows.MAX_STRANGERS", 2)
    monkeypatch.setattr("fleetgate.proof.segments.MAX_STRANGERS", 2)
    for segment in range(10, 15):
        copy_events(audit, segment)
    findings = audit.verify().findings
    assert [f.segment for f in findings] == [10, 11, 12]
    assert "more than 2" in findings[-1].what


def test_what_is_found_once_only_is_load_at_work(audit: Audit) -> None:
    """Rows of a retry are there before their row in `segments` says so: what stays is told."""
    copy_events(audit, 9)

    def look() -> Report:
        report = audit.verify()
        audit.tamper("events", "DELETE WHERE spool = {spool} AND segment = 9")
        return report

    assert twice(look).findings == []
    audit.tamper("events", f"DELETE WHERE {ONE}")
    assert [(f.kind.value, f.segment) for f in twice(look).findings] == [("missing", 2)]


def test_whoever_goes_on_tampering_is_told(audit: Audit) -> None:
    """One row more between the two looks: another count, and the same place. What is told is how it is now."""
    copy_events(audit, 2)

    def look() -> Report:
        report = audit.verify()
        copy_events(audit, 2)
        return report

    [finding] = twice(look).findings
    assert (finding.kind.value, finding.segment, "2 more than were loaded" in finding.what) == ("added", 2, True)


def test_a_change_that_becomes_another_is_told(audit: Audit) -> None:
    """A row altered at the first look, and one taken out at the second."""
    audit.tamper("events", f"UPDATE software = 'x' WHERE {ONE} AND event_index = 1")

    def look() -> Report:
        report = audit.verify()
        audit.tamper("events", f"DELETE WHERE {ONE} AND event_index = 1")
        return report

    assert [(f.kind.value, f.segment) for f in twice(look).findings] == [("missing", 2)]


def test_a_row_that_is_no_head_is_told_beside_the_others(audit: Audit) -> None:
    """Whoever puts nonsense into segment_heads does not end the verification."""
    audit.bench.clickhouse.command(
        f"INSERT INTO segment_heads SELECT * REPLACE ('x' AS link) FROM segment_heads WHERE spool = '{audit.spool}'"
    )
    heads, bad = stored_heads(audit.bench.clickhouse, audit.spool)
    assert (len(heads), len(bad), "is no head" in bad[0]) == (1, 1, True)


def test_two_heads_for_one_place_are_told(audit: Audit) -> None:
    """Both signed, in whatever order they come: no signer signs two."""
    [signed] = audit.heads()
    other = msgspec.structs.replace(signed, head=msgspec.structs.replace(signed.head, link="0" * 64))
    assert beside_one_another([signed, signed]) == []
    assert len(beside_one_another([signed, other])) == 1


def test_an_export_too_large_to_be_one_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives the file must not fill the memory."""
    monkeypatch.setattr("fleetgate.proof.heads.MAX_EXPORT_BYTES", 10)
    (tmp_path / "heads.json").write_text('{"format": "fleetgate-heads-1", "heads": []}')
    with pytest.raises(ConfigError, match="no export"):
        read_export(tmp_path / "heads.json")


@pytest.fixture
def own_gate(owner: Owner, tmp_path: Path) -> Iterator[Audit]:
    """A gate with a database of its own, to be verified whole."""
    server = ServerClickHouse(owner.url, "fleetgate_ledger", "default", WRITER)
    migrate(server, catalogue(), 7)
    bench = Bench(tmp_path, "ledger", server)
    audit = Audit(bench, tmp_path)
    fill(bench, "ledger")
    bench.load_all()
    audit.sign()
    yield audit
    server.command("DROP DATABASE fleetgate_ledger")
    server.close()


def test_ranges_from_before_the_ledger_need_segments_from_before_it(own_gate: Audit) -> None:
    """One hides every hole below its end: where nothing is that old, it was put there."""

    def found() -> list[tuple[str, str | None]]:
        keeping = Keeping(SystemClock().now_ms(), 7)
        key = read_public_key(own_gate.public)
        report = verify_segments(own_gate.bench.clickhouse, own_gate.heads(), key, keeping, Scope())
        return [(f.kind.value, f.table) for f in report.findings]

    assert found() == []
    own_gate.bench.clickhouse.command(
        "INSERT INTO received_ranges SELECT * REPLACE ('before_ledger' AS outcome, '' AS spool, 0 AS segment) "
        "FROM (SELECT * FROM received_ranges LIMIT 1)"
    )
    assert found() == [("added", "received_ranges")]


def test_a_signer_that_began_anew_signs_the_whole_chain(audit: Audit) -> None:
    """The new key vouches for every segment; heads of the old one are told, and verify with the old one."""
    old = audit.directory / "old"
    old.mkdir()
    public = read_public_key(audit.public)
    for path in (audit.key, audit.public, audit.log, count_of(audit.key)):
        path.rename(old / path.name)
    make_audit_key(audit.key, audit.public, audit.log)
    assert (audit.found(), audit.verify().heads) == ([("signature", 3, None)], 0)
    audit.sign()  # the place that the old one signed
    assert audit.found() == [("signature", 3, None)]
    report = audit.verify()
    assert (report.heads, report.unsigned) == (1, 0)
    assert "was signed with another key" in report.findings[0].what
    assert [signed.head.place for signed in sort_out(audit.heads(), public)[0]] == [3]
