"""Parked segments that load tries again, and repaired ones: each row is there once, whatever was there before."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.load.test_exactly_once import ONCE, fill, forget_tokens, killed_at, state
from tests.segments import peer, rows_body, sample
from tests.spools import alter_identity

from fleetgate.clock import SystemClock
from fleetgate.load.skipped import Skipped
from fleetgate.spool.checkpoint import Checkpoint
from fleetgate.spool.cursor import read_cursor
from fleetgate.spool.custody import held
from fleetgate.spool.reader import read_segment, segment_paths
from fleetgate.spool.repair import Repair
from fleetgate.spool.requests import ask, asked

TWICE_TOLD = ONCE | {"segments": 2}
"""A segment that was loaded in part and completed has a second row in `segments`, for what came then."""

POISON = "ALTER TABLE {} ADD CONSTRAINT no_poison CHECK vehicle_id NOT LIKE '%poison'"


def parked(bench: Any, number: int = 1) -> Path:
    path: Path = bench.spool.directory / "parked" / f"{number:020d}.seg"
    return path


def why(bench: Any, number: int = 1) -> str:
    return str(json.loads(parked(bench, number).with_suffix(".error.json").read_text())["why"])


def retry(bench: Any, number: int = 1) -> None:
    """As `fleetgate spool retry` asks for it, with a load that was started anew."""
    ask(parked(bench, number))
    bench.restart()
    bench.load_all()
    assert asked(bench.spool.directory / "parked") == []


def told(bench: Any) -> dict[str, int]:
    """What the rows of `segments` say of the bench's spool, put together."""
    tables = ("events", "held_events", "rejections", "raw_messages", "received_ranges")
    sums = ", ".join(f"sum({table})" for table in tables)
    [row] = bench.clickhouse.rows(
        f"SELECT {sums} FROM segments WHERE spool = {{s:String}}", {"s": bench.spool.identity.hex()}
    )
    return dict(zip(tables, map(int, row), strict=True))


def repair(bench: Any) -> None:
    """As `fleetgate spool repair --yes` does it, on a spool whose windows are whole."""
    Checkpoint(bench.spool.directory / "checkpoint.db").close()
    with held(bench.spool.directory) as custody:
        for step in Repair(custody, SystemClock(), os.urandom).steps:
            step.act()


def refuse(bench: Any, table: str, then: Callable[[], None]) -> None:
    """Has ClickHouse refuse poison in `table` while a segment of it is loaded."""
    bench.clickhouse.command(POISON.format(table))
    try:
        then()
    finally:
        bench.clickhouse.command(f"ALTER TABLE {table} DROP CONSTRAINT no_poison")


@pytest.mark.parametrize("table", ["events", "held_events", "rejections", "raw_messages"])
def test_a_refused_segment_is_loaded_once_its_cause_is_mended(bench: Any, table: str) -> None:
    """Whichever table refused it, and whatever was in the others already; then it is parked no more."""
    vehicle = f"{table}-poison"
    fill(bench, vehicle)
    refuse(bench, table, bench.load_all)
    assert why(bench) == "refused in part"
    retry(bench)
    assert state(bench, vehicle) == TWICE_TOLD
    assert told(bench) == {table: ONCE[table] for table in told(bench)}
    assert list((bench.spool.directory / "parked").iterdir()) == []


def test_a_refused_segment_is_completed_by_its_rows(bench: Any) -> None:
    """When ClickHouse has forgotten the tokens of the tables that took it, what is there is left alone."""
    fill(bench, "late-poison")
    refuse(bench, "raw_messages", bench.load_all)
    forget_tokens(bench)
    retry(bench)
    assert state(bench, "late-poison") == TWICE_TOLD


def test_a_segment_that_is_refused_again_stays_parked(bench: Any) -> None:
    """With the newer reason; segments behind it are loaded, and nothing goes round in circles."""
    fill(bench, "again-poison")
    bench.clickhouse.command(POISON.format("events"))
    try:
        bench.load_all()
        fill(bench, "behind-it")
        retry(bench)
    finally:
        bench.clickhouse.command("ALTER TABLE events DROP CONSTRAINT no_poison")
    assert (why(bench), parked(bench).exists(), bench.count("segments")) == ("refused in part", True, 2)
    cursor = read_cursor(bench.spool.directory)
    assert cursor is not None
    assert cursor.segment == 2


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("table", ["events", "raw_messages", "segments"])
def test_a_retry_may_be_killed(bench: Any, table: str, when: str) -> None:
    """At any insert: the request is still there, and the next process completes it once, and counts it."""
    vehicle = f"{table}-{when}-poison"
    fill(bench, vehicle)
    refuse(bench, "events" if table == "segments" else table, bench.load_all)
    ask(parked(bench))
    killed_at(bench, table, when)
    assert asked(bench.spool.directory / "parked") == [parked(bench)]
    bench.restart()
    bench.load_all()
    assert state(bench, vehicle) == TWICE_TOLD | {"segments": bench.count("segments")}
    assert told(bench) == {table: ONCE[table] for table in told(bench)}


def damaged_twice(bench: Any, vehicle: str) -> list[bytes]:
    """A segment of five messages without trailer and with one damaged record: load reads only what is before it."""
    sender = peer(bench.vehicle(vehicle))
    raws = [bench.spool.message(rows_body(sample(0, s1=float(value))), sender=sender) for value in range(5)]
    path = bench.spool.seal()
    data = bytearray(path.read_bytes())
    data[data.index(raws[2]) + 20] ^= 1
    data[-1] ^= 1
    path.write_bytes(data)
    return raws


def readings(bench: Any, vehicle: str) -> list[float]:
    found = bench.clickhouse.rows(
        "SELECT signal_values[1] FROM events WHERE vehicle_id = {v:String} ORDER BY 1", {"v": bench.vehicle(vehicle)}
    )
    return [float(value) for [value] in found]


def test_what_load_could_not_read_comes_after_the_repair(bench: Any) -> None:
    """The rows before the damage are not doubled, those behind it arrive, the damaged one is lost and is told."""
    damaged_twice(bench, "salvaged")
    bench.load_all()
    assert (readings(bench, "salvaged"), why(bench)) == ([0, 1], "damaged")
    repair(bench)
    retry(bench)
    assert readings(bench, "salvaged") == [0, 1, 3, 4]
    rollup = "SELECT sum(readings) FROM signal_minute WHERE vehicle_id = {v:String}"
    assert bench.clickhouse.rows(rollup, {"v": bench.vehicle("salvaged")}) == [[4]]
    first, second = bench.clickhouse.rows(
        "SELECT sha256, previous_sha256, messages, events FROM segments WHERE spool = {s:String} ORDER BY loaded_at",
        {"s": bench.spool.identity.hex()},
    )
    assert (first[2:], second[1:]) == ([2, 2], [first[0], 2, 2])
    assert not parked(bench).exists()
    assert [path.suffix for path in (bench.spool.directory / "parked").iterdir()] == [".damaged"]


def test_a_repaired_segment_that_was_half_loaded_is_completed(bench: Any) -> None:
    """Load ended between two tables, then the file was repaired and has another SHA-256: still each row once."""
    damaged_twice(bench, "half")
    killed_at(bench, "raw_messages", "before")
    repair(bench)
    bench.restart()
    bench.load_all()
    assert readings(bench, "half") == [0, 1, 3, 4]
    assert (bench.count("raw_messages"), bench.count("segments")) == (4, 1)


def test_a_repair_that_lost_nothing_doubles_nothing(bench: Any) -> None:
    """Only the trailer was hit: the file has its old SHA-256 again, and the rows came under another one."""
    fill(bench, "trailer")
    path = bench.spool.directory / "segments" / f"{1:020d}.seg"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    killed_at(bench, "segments", "before")
    repair(bench)
    bench.restart()
    bench.load_all()
    assert state(bench, "trailer") == ONCE


def test_an_unreadable_segment_is_loaded_after_its_repair(bench: Any) -> None:
    """Header and trailer damaged: load sets it aside whole, the repair makes it readable, all of it arrives."""
    fill(bench, "headless")
    path = bench.spool.directory / "segments" / f"{1:020d}.seg"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    data[-1] ^= 1
    path.write_bytes(data)
    bench.load_all()
    assert why(bench) == "unreadable"
    repair(bench)
    retry(bench)
    assert state(bench, "headless") == ONCE


def test_transitions_come_with_a_repaired_segment(bench: Any) -> None:
    """What the edge did to a device is told to control as soon as the segment can be read."""
    bench.spool.message(rows_body(sample(0, s1=1.0)), sender=peer(bench.vehicle("moved")))
    bench.spool.transition("moved")
    path = bench.spool.seal()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    data[-1] ^= 1
    path.write_bytes(data)
    bench.load_all()
    assert bench.transitions == []
    repair(bench)
    retry(bench)
    assert bench.transitions == [(1, "moved")]


def test_an_empty_segment_of_a_repair_is_loaded_as_one(bench: Any) -> None:
    """It stands for a missing one: it has a row in `segments` and no others."""
    fill(bench, "hole-1")
    fill(bench, "hole-2")
    fill(bench, "hole-3")
    (bench.spool.directory / "segments" / f"{2:020d}.seg").unlink()
    repair(bench)
    bench.restart()
    bench.load_all()
    assert (bench.count("segments"), bench.count("events")) == (3, 6)


def test_an_empty_segment_does_not_pass_for_a_loaded_one(bench: Any) -> None:
    """What was loaded and went missing stays as it was loaded; what stands for it is no version of it."""
    fill(bench, "stands-for")
    bench.load_all()
    (bench.spool.directory / "segments" / f"{1:020d}.seg").unlink()
    fill(bench, "after-it")
    (bench.spool.directory / "cursor.json").unlink()
    repair(bench)
    bench.restart()
    bench.load_all()
    assert state(bench, "stands-for")["rollup"] == ONCE["rollup"]
    assert (bench.count("segments"), bench.count("events"), why(bench)) == (2, 6, "changed")


def test_a_changed_segment_is_not_loaded_by_asking(bench: Any) -> None:
    """It is evidence; a request for it changes nothing."""
    fill(bench, "evidence")
    bench.load_all()
    (bench.spool.directory / "cursor.json").unlink()
    path = bench.spool.directory / "segments" / f"{1:020d}.seg"
    path.write_bytes(path.read_bytes() + b"more")
    bench.restart()
    bench.load_all()
    retry(bench)
    assert (state(bench, "evidence"), why(bench)) == (ONCE, "changed")


def test_a_file_that_lies_under_another_number_is_set_aside(bench: Any) -> None:
    """A segment copied over the next one: not taken for loaded already, and the right file is loaded on demand."""
    for name in ("one", "two", "three"):
        fill(bench, name)
    first, second, _ = sorted((bench.spool.directory / "segments").iterdir())
    right = second.read_bytes()
    second.write_bytes(first.read_bytes())
    bench.load_all()
    assert (why(bench, 2), bench.count("segments")) == ("misplaced", 2)
    retry(bench, 2)
    assert why(bench, 2) == "misplaced"
    parked(bench, 2).write_bytes(right)
    retry(bench, 2)
    assert bench.count("segments") == 3


def test_segments_of_the_spool_it_was_before_a_repair_are_loaded(bench: Any) -> None:
    """`repair --restored` gives a spool a new identity; what lies there has the one before in its headers."""
    fill(bench, "before-repair")
    fill(bench, "before-repair-too")
    alter_identity(bench.spool.directory, spool="ab" * 16, former=[bench.spool.identity.hex()])
    bench.restart()
    bench.load_all()
    assert (state(bench, "before-repair")["rollup"], bench.count("events")) == (ONCE["rollup"], 6)
    assert segment_paths(bench.spool.directory / "parked") == []


def test_a_segment_of_a_stranger_is_set_aside(bench: Any) -> None:
    """Its messages were acknowledged by another gate: they are not this one's to load, nor by asking."""
    fill(bench, "stranger")
    alter_identity(bench.spool.directory, spool="ab" * 16)
    bench.restart()
    bench.load_all()
    retry(bench)
    assert (why(bench), bench.count("segments"), bench.count("events")) == ("misplaced", 0, 0)


def test_a_segment_that_was_cut_off_is_set_aside_and_said(bench: Any) -> None:
    """Between two records nothing looks damaged: what is there is loaded, and somebody learns that more was."""
    fill(bench, "cut-off")
    path = bench.spool.directory / "segments" / f"{1:020d}.seg"
    segment = read_segment(path)
    path.write_bytes(path.read_bytes()[: int(segment.messages.offset[2])])
    bench.load_all()
    assert (why(bench), bench.count("events")) == ("damaged", 3)
    [[damaged]] = bench.clickhouse.rows(
        "SELECT damaged FROM segments WHERE spool = {spool:String}", {"spool": bench.spool.identity.hex()}
    )
    assert damaged == 1


def test_what_a_planted_row_kept_out_is_loaded_when_the_row_is_gone(bench: Any) -> None:
    """Somebody who can write to ClickHouse says that the segment is loaded: it is set aside, not lost."""
    fill(bench, "planted")
    spool = bench.spool.identity.hex()
    bench.clickhouse.command(f"INSERT INTO segments (spool, segment, sha256) VALUES ('{spool}', 1, '{'ab' * 32}')")
    bench.load_all()
    assert (why(bench), bench.count("events")) == ("changed", 0)
    retry(bench)
    assert (why(bench), bench.count("events")) == ("changed", 0)
    gone = f"ALTER TABLE segments DELETE WHERE spool = '{spool}' SETTINGS mutations_sync = 2"
    bench.clickhouse.command(gone)
    retry(bench)
    assert (state(bench, "planted"), segment_paths(bench.spool.directory / "parked")) == (ONCE, [])


def test_what_load_went_past_is_told_until_it_came_after_all(bench: Any) -> None:
    """A restart of load is no remedy; the segments, put into parked/ and asked for, are."""
    skipped = Skipped(bench.spool.directory)
    for name in ("a", "b", "c", "d"):
        fill(bench, name)
    paths = [path for _, path in segment_paths(bench.spool.directory / "segments")]
    away = [path.rename(bench.spool.directory / path.name) for path in paths[1:3]]
    bench.load_all()
    assert skipped.count() == 2
    bench.restart()
    bench.load_all()
    assert skipped.count() == 2
    for number, path in ((2, away[0]), (3, away[1])):
        parked(bench).parent.mkdir(exist_ok=True)
        path.rename(parked(bench, number))
        retry(bench, number)
    assert (skipped.count(), bench.count("segments")) == (0, 4)
