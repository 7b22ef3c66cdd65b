"""A segment's rows are in ClickHouse exactly once, whatever is repeated, lost or refused on the way."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.segments import DAY_MS, RECEIVED_AT, peer, rows_body, sample
from tests.spools import rejection

from fleetgate.clock import SystemClock
from fleetgate.errors import ClickHouseAway
from fleetgate.load import loader
from fleetgate.load.clickhouse import ClickHouse
from fleetgate.load.lag import Lag, lag_of
from fleetgate.spool.cursor import Cursor, read_cursor, write_cursor
from fleetgate.spool.reader import Segment, read_segment
from fleetgate.spool.requests import ask


class Flaky:
    """The real ClickHouse behind a network that breaks: before an insert arrives, or after it was done."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._clickhouse = clickhouse
        self.breaks: dict[str, str] = {}  # table -> "before" or "after"
        self.on_break: Callable[[], None] = lambda: None

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        when = self.breaks.pop(table, None)
        if when != "before":
            self._clickhouse.insert(table, rows, token)
        if when is not None:
            self.on_break()
            raise ClickHouseAway("the connection broke")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clickhouse, name)


class Killed(BaseException):
    """Stands for the end of a process at one point of the loop."""


def deadly(clickhouse: ClickHouse, table: str, when: str) -> Flaky:
    """Whoever inserts into `table` is killed, "before" or "after" it was done."""
    flaky = Flaky(clickhouse)
    flaky.breaks[table] = when

    def die() -> None:
        raise Killed

    flaky.on_break = die
    return flaky


def killed_at(bench: Any, table: str, when: str) -> None:
    """A load is started, and killed so."""
    with pytest.raises(Killed):
        bench.restart(deadly(bench.clickhouse, table, when)).step()


def fill(bench: Any, vehicle: str, apart_ms: int = DAY_MS) -> None:
    """A segment with three events of one vehicle, on two days, one of them held."""
    sender = peer(bench.vehicle(vehicle))
    bench.spool.message(rows_body(sample(-1000, s1=50.0), sample(0, s1=60.0)), sender=sender)
    bench.spool.message(rows_body(sample(0, s1=70.0)), sender=sender, received_at=RECEIVED_AT + apart_ms)
    bench.spool.message(rows_body(sample(0, s1=99.0)), sender=sender, outcome=2)
    bench.spool.writer.rejection(bench.spool.sender(sender), rejection("bad_mac", 4, RECEIVED_AT, RECEIVED_AT, []))
    bench.spool.seal()


def state(bench: Any, vehicle: str) -> dict[str, Any]:
    """Rows by table, and the rollups of the vehicle."""
    tables = ("events", "held_events", "rejections", "raw_messages", "received_ranges", "pulses", "segments")
    rollup = bench.clickhouse.rows(
        "SELECT sum(readings), sum(total) FROM signal_minute WHERE vehicle_id = {v:String}",
        {"v": bench.vehicle(vehicle)},
    )
    return {table: bench.count(table) for table in tables} | {"rollup": rollup}


ONCE = {
    "events": 3,
    "held_events": 1,
    "rejections": 1,
    "raw_messages": 3,
    "received_ranges": 2,
    "pulses": 3,
    "segments": 1,
    "rollup": [[3, 180]],
}


def test_a_segment_is_loaded_with_all_it_holds(bench: Any) -> None:
    """Events, held events, refusals, signed bytes and rollups are there, and the cursor stands on the segment."""
    fill(bench, "once")
    bench.load_all()
    assert state(bench, "once") == ONCE
    cursor = read_cursor(bench.spool.directory)
    assert cursor is not None
    assert cursor.segment == 1


def test_the_same_segment_again_changes_nothing(bench: Any) -> None:
    """With the cursor lost, all segments are offered again: neither rows nor rollups grow."""
    fill(bench, "again")
    bench.load_all()
    (bench.spool.directory / "cursor.json").unlink()
    bench.restart()
    bench.load_all()
    assert state(bench, "again") == ONCE
    cursor = read_cursor(bench.spool.directory)
    assert cursor is not None
    assert cursor.segment == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "table", ["events", "held_events", "rejections", "raw_messages", "received_ranges", "pulses", "segments"]
)
def test_a_crash_at_any_insert_is_repaired_by_the_next_start(bench: Any, table: str, when: str) -> None:
    """The process ends before or after any insert; its successor completes the segment, once."""
    vehicle = f"crash-{table}-{when}"
    fill(bench, vehicle)
    killed_at(bench, table, when)
    assert read_cursor(bench.spool.directory) is None
    bench.restart()
    bench.load_all()
    assert state(bench, vehicle) == ONCE


def test_an_answer_that_got_lost_is_asked_for_again(bench: Any) -> None:
    """ClickHouse did the insert and the connection broke: the same token goes again, and counts once."""
    fill(bench, "lost-answer")
    flaky = Flaky(bench.clickhouse)
    flaky.breaks = dict.fromkeys(("events", "raw_messages", "segments"), "after")
    bench.restart(flaky)
    bench.load_all()
    assert state(bench, "lost-answer") == ONCE


@pytest.mark.parametrize("table", ["events", "held_events", "raw_messages", "received_ranges", "pulses"])
def test_what_clickhouse_has_forgotten_is_told_by_the_rows(bench: Any, table: str) -> None:
    """Its memory of tokens is gone when the segment is repeated: what is there is left alone, rollups too."""
    vehicle = f"forgotten-{table}"
    fill(bench, vehicle)
    flaky = Flaky(bench.clickhouse)
    flaky.breaks[table] = "after"
    flaky.on_break = lambda: forget_tokens(bench)
    bench.restart(flaky)
    bench.load_all()
    assert state(bench, vehicle) == ONCE


def forget_tokens(bench: Any) -> None:
    """Empties the windows, as thousands of other inserts would."""
    tables = ("events", "held_events", "rejections", "raw_messages", "received_ranges", "pulses")
    for table in (*tables, "signal_minute", "fleet_minute"):
        for size in (0, 10_000):
            bench.clickhouse.command(f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = {size}")


def test_nothing_is_repeated_behind_an_insert_that_still_runs(bench: Any) -> None:
    """It may be between a table and its views: load waits for it, and then completes what it left out."""
    fill(bench, "running")
    killed_at(bench, "events", "after")
    running = Running(bench.clickhouse, 2)
    bench.restart(running)
    bench.load_all()
    assert (state(bench, "running"), running.left) == (ONCE, 0)


class Running:
    """The real ClickHouse, with an insert running for so many looks at it."""

    def __init__(self, clickhouse: ClickHouse, looks: int) -> None:
        self._clickhouse = clickhouse
        self.left = looks

    def rows(self, sql: str, parameters: Any = None) -> list[list[Any]]:
        if "system.processes" in sql and self.left:
            self.left -= 1
            return [[1]]
        return self._clickhouse.rows(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clickhouse, name)


def test_without_a_cursor_everything_may_have_been_tried(bench: Any) -> None:
    """The cursor is removed, as its own message says, while a segment is in hand and one is parked: when ClickHouse has
    forgotten both, each row still counts once."""
    for vehicle in ("whole", "parked", "in-hand"):
        fill(bench, vehicle)
    bench.clickhouse.command(POISON)
    try:
        bench.loader.step()
        bench.loader.step()
    finally:
        bench.clickhouse.command("ALTER TABLE signal_minute DROP CONSTRAINT no_view")
    killed_at(bench, "events", "after")
    forget_tokens(bench)
    (bench.spool.directory / "cursor.json").unlink()
    bench.restart()
    bench.load_all()
    rows = {table: 3 * count for table, count in ONCE.items() if isinstance(count, int)}
    assert {table: bench.count(table) for table in rows} == rows
    assert {vehicle: state(bench, vehicle)["rollup"] for vehicle in ("whole", "parked", "in-hand")} == dict.fromkeys(
        ("whole", "parked", "in-hand"), ONCE["rollup"]
    )


POISON = "ALTER TABLE signal_minute ADD CONSTRAINT no_view CHECK vehicle_id NOT LIKE '%parked'"


def test_transitions_do_not_wait_for_clickhouse(bench: Any) -> None:
    """While ClickHouse is away, devices put into quarantine in this and in later segments are known to control."""
    bench.spool.message(rows_body(sample(0, s1=1.0)))
    bench.spool.transition("first")
    bench.spool.seal()
    bench.spool.transition("second")
    bench.spool.seal()
    flaky = Flaky(bench.clickhouse)
    flaky.breaks["events"] = "before"
    seen: list[list[tuple[int, str]]] = []
    bench.restart(flaky, Waits(lambda: seen.append(list(bench.transitions))))
    bench.loader.step()
    assert seen == [[(1, "first"), (2, "second")]]


class Waits:
    """A stop event that is never set and says when the loader pauses."""

    def __init__(self, paused: Any) -> None:
        self._paused = paused

    def is_set(self) -> bool:
        return False

    def wait(self, _seconds: float) -> bool:
        self._paused()
        return False


def test_a_refused_segment_does_not_block_the_next(bench: Any) -> None:
    """Rows that ClickHouse will not take are set aside with its words; the segment behind them is loaded."""
    clickhouse = bench.clickhouse
    clickhouse.command("ALTER TABLE events ADD CONSTRAINT no_poison CHECK vehicle_id NOT LIKE '%poison'")
    try:
        fill(bench, "poison")
        fill(bench, "healthy")
        bench.load_all()
    finally:
        clickhouse.command("ALTER TABLE events DROP CONSTRAINT no_poison")
    parked = bench.spool.directory / "parked"
    error = json.loads((parked / f"{1:020d}.error.json").read_text())
    assert (error["why"], error["code"]) == ("refused in part", 469)
    assert (parked / f"{1:020d}.seg").exists()
    assert (bench.count("segments"), bench.count("events"), bench.count("raw_messages")) == (2, 3, 6)


def test_a_damaged_record_costs_itself_and_is_kept_aside(bench: Any) -> None:
    """With one byte flipped, the other messages are loaded and the damaged file is parked."""
    raw = bench.spool.message(rows_body(sample(0, s1=1.0)))
    bench.spool.message(rows_body(sample(0, s1=2.0)))
    path = bench.spool.seal()
    data = bytearray(path.read_bytes())
    data[data.index(raw) + 20] ^= 1
    path.write_bytes(data)
    bench.load_all()
    assert bench.count("events") == 1
    error = json.loads((bench.spool.directory / "parked" / f"{path.stem}.error.json").read_text())
    assert error["why"] == "damaged"


def test_a_file_that_is_no_segment_is_parked(bench: Any) -> None:
    """Without a readable header there is nothing to load: the file is set aside and its number passed."""
    fill(bench, "unreadable")
    path = bench.spool.directory / "segments" / f"{1:020d}.seg"
    path.write_bytes(b"nonsense")
    fill(bench, "behind-it")
    bench.load_all()
    assert bench.count("segments") == 1
    assert (bench.spool.directory / "parked" / path.name).read_bytes() == b"nonsense"


def test_a_sector_that_cannot_be_read_costs_its_segment(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set aside, the one behind it is loaded, and a start finds nothing in its way. When the disk gives it back,
    a retry loads it."""
    for vehicle in ("unread", "behind-it"):
        fill(bench, vehicle)
    unread = f"{1:020d}.seg"

    def failing(path: Path) -> Segment:
        if path.name == unread:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read_segment(path)

    monkeypatch.setattr(loader, "read_segment", failing)
    bench.load_all()
    parked = bench.spool.directory / "parked" / unread
    assert (bench.count("segments"), bench.count("events"), parked.exists()) == (1, 3, True)
    (bench.spool.directory / "cursor.json").unlink()
    ask(parked)
    bench.restart()
    bench.load_all()
    error = json.loads(parked.with_suffix(".error.json").read_text())
    assert (error["why"], "Input/output error" in error["error"], bench.count("segments")) == ("unreadable", True, 1)
    monkeypatch.undo()
    ask(parked)
    bench.load_all()
    assert (state(bench, "unread")["rollup"], bench.count("events"), parked.exists()) == (ONCE["rollup"], 6, False)


def test_a_changed_segment_is_not_loaded_over_the_old_one(bench: Any) -> None:
    """A file that has another content than when it was loaded is evidence, not data."""
    fill(bench, "changed")
    bench.load_all()
    (bench.spool.directory / "cursor.json").unlink()
    path = bench.spool.directory / "segments" / f"{1:020d}.seg"
    path.write_bytes(path.read_bytes() + b"more")
    bench.restart()
    bench.load_all()
    assert state(bench, "changed") == ONCE
    assert (bench.spool.directory / "parked" / path.name).exists()


def test_a_cursor_ahead_of_all_segments_waits(bench: Any) -> None:
    """Nothing behind the cursor is loaded again, and nothing is invented."""
    fill(bench, "ahead")
    write_cursor(bench.spool.directory, Cursor(bench.spool.identity.hex(), 9, "00"))
    assert bench.loader.step() is False
    assert bench.count("segments") == 0


def test_a_full_disk_holds_the_cursor_up_and_nothing_else(bench: Any) -> None:
    """What is inserted stays so; when there is space again, load goes on from there without a start."""
    bench.spool.message(rows_body(sample(0, s1=1.0)))
    bench.spool.seal()
    blocked = bench.spool.directory / "cursor.json.new"
    blocked.mkdir()  # no file can be written there
    tries: list[str] = []

    def pause(_tries: int) -> float:
        tries.append(bench.loader.unready())
        if len(tries) == 2:
            blocked.rmdir()
        return 0.0

    bench.patience._pause_seconds = pause
    bench.load_all()
    assert [("cursor.json" in told, "mend the spool's disk" in told) for told in tries] == [(True, True)] * 2
    cursor = read_cursor(bench.spool.directory)
    assert (cursor.segment if cursor else None, bench.count("events")) == (1, 1)


def test_the_cursor_of_another_spool_does_not_hide_this_one(bench: Any) -> None:
    """On a replaced disk numbers start again: a cursor that names another spool counts for nothing."""
    fill(bench, "replaced")
    write_cursor(bench.spool.directory, Cursor("00" * 16, 9, "00"))
    bench.load_all()
    assert state(bench, "replaced") == ONCE


def test_segments_form_a_chain(bench: Any) -> None:
    """Each row of `segments` names the digest of the segment before it."""
    fill(bench, "chain-1")
    fill(bench, "chain-2")
    bench.load_all()
    first, second = bench.clickhouse.rows(
        "SELECT sha256, previous_sha256 FROM segments WHERE spool = {spool:String} ORDER BY segment",
        {"spool": bench.spool.identity.hex()},
    )
    assert (first[1], second[1]) == ("", first[0])


def test_readings_and_latest_show_what_was_sent(bench: Any) -> None:
    """The views give each reading its path, unit, value and provenance; implausible ones never become the latest."""
    bench.spool.message(
        rows_body(sample(-2000, s1=50.0), sample(-1000, s1=9999.0)), sender=peer(bench.vehicle("viewed"))
    )
    bench.spool.seal()
    bench.load_all()
    found = bench.clickhouse.rows(
        "SELECT path, unit, value, plausible, event_index, seq, segment, policy_version FROM readings "
        "WHERE vehicle_id = {v:String} ORDER BY event_index",
        {"v": bench.vehicle("viewed")},
    )
    assert found == [
        ["Vehicle.Speed", "km/h", 50, 1, 0, 0, 1, "p-1"],
        ["Vehicle.Speed", "km/h", 9999, 0, 1, 0, 1, "p-1"],
    ]
    latest = "SELECT path, value FROM latest WHERE vehicle_id = {v:String}"
    assert bench.clickhouse.rows(latest, {"v": bench.vehicle("viewed")}) == [["Vehicle.Speed", 50]]


def test_unknown_names_survive_a_restart(bench: Any, tmp_path: Path) -> None:
    """A tenant's kept names are read back at start, so that restarts do not give it 64 more."""
    tenant = f"t{tmp_path.name.lower()}"
    for prefix in ("a", "b"):
        names = {f"{prefix}{number}": 1.0 for number in range(40)}
        bench.spool.message(rows_body([0, "sample", names, {}]), sender=peer(tenant=tenant))
        bench.spool.seal()
        bench.restart()
        bench.load_all()
    [[kept, dropped]] = bench.clickhouse.rows(
        "SELECT sum(length(unknown_values)), sum(unknown_dropped) FROM events WHERE spool = {spool:String}",
        {"spool": bench.spool.identity.hex()},
    )
    assert (kept, dropped) == (64, 16)


def test_lag_is_told_while_clickhouse_is_away(bench: Any) -> None:
    """Segments, bytes and the age of the oldest for as long as they wait, and nothing when all are loaded."""
    fill(bench, "lag-1")
    fill(bench, "lag-2")
    paths = list((bench.spool.directory / "segments").glob("*.seg"))
    flaky = Flaky(bench.clickhouse)
    flaky.breaks["events"] = "before"
    seen: list[Lag] = []
    in_a_minute = SystemClock().now_ms() + 60_000
    bench.restart(flaky, Waits(lambda: seen.append(lag_of(bench.spool.directory, in_a_minute))))
    bench.load_all()
    [lag] = seen
    assert (lag.segments, lag.size) == (2, sum(path.stat().st_size for path in paths))
    assert 60 <= lag.seconds < 90
    assert lag_of(bench.spool.directory, in_a_minute) == Lag(0, 0, 0.0)


def test_what_an_edge_has_open_is_no_silence(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until when all is loaded is the newest receipt of what is, and the clock once the edge has nothing open for a
    while. An edge that has the same segment open for too long is dead."""
    fill(bench, "first")
    bench.load_all()
    monkeypatch.setattr(loader, "QUIET_SECONDS", 0.0)
    bench.spool.message(rows_body(sample(0, s1=50.0)))
    bench.spool.live_bytes()
    assert (bench.loader.step(), bench.loader.loaded_until_ms()) == (False, RECEIVED_AT + DAY_MS)
    monkeypatch.setattr(loader, "HANGING_SECONDS", 0.0)
    before_ms = SystemClock().now_ms() - 11_000
    assert not bench.loader.step()
    assert before_ms <= bench.loader.loaded_until_ms() <= SystemClock().now_ms() - 11_000


def test_a_moment_without_a_segment_is_no_silence(bench: Any) -> None:
    """An edge that gets no CPU has received nothing for a while by no clock."""
    fill(bench, "first")
    bench.load_all()
    assert (bench.loader.step(), bench.loader.loaded_until_ms()) == (False, RECEIVED_AT + DAY_MS)


def test_a_spool_is_on_record_before_its_first_segment_is_loaded(bench: Any) -> None:
    """Load waits for control with it, once; a later start with a cursor does not."""
    bench.control_away = 2
    fill(bench, "first")
    fill(bench, "second")
    bench.load_all()
    bench.restart()
    fill(bench, "third")
    bench.load_all()
    assert bench.begun == [(bench.spool.identity.hex(), 0)]
    assert (bench.control_away, bench.count("segments")) == (0, 3)


def test_control_is_told_the_newest_time_of_receipt(bench: Any) -> None:
    """Of all that was loaded, not of the last segment: with a message that was received before, it stays."""
    fill(bench, "newest")
    bench.spool.message(rows_body(sample(0, s1=1.0)))
    bench.spool.seal()
    bench.load_all()
    bench.progress.round()
    assert bench.noted == [(bench.spool.identity.hex(), 2, RECEIVED_AT + DAY_MS)]
