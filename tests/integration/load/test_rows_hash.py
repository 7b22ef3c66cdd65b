"""The hash of a segment's rows: load and ClickHouse compute the same one, and it is that of these rows alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.segments import DAY_MS, RECEIVED_AT, SpoolOnDisk, pack, peer, rows_body, sample
from tests.spools import rejection

from fleetgate.catalogue import catalogue
from fleetgate.judge.body import COLUMNS
from fleetgate.load.columns import Rows, SegmentRows, segment_rows
from fleetgate.load.rowshash import FORMS, hash_query, rows_hash
from fleetgate.load.unknown import UnknownNames


def fill_with_everything(spool: SpoolOnDisk, vehicle: Any, rng: random.Random) -> None:
    """A segment with every kind of row: mixed layouts, two days, held, columns, unknown names, texts, ranges."""
    for number in range(40):
        sender = peer(vehicle(f"v{number % 5}"), tenant=f"tenant-{number % 3}")
        day = RECEIVED_AT + (number % 2) * DAY_MS
        odd = [-5, "fault", {"Foo.Unknown": 3.5, 1: -0.0, "b": 1e300}, {"Vehicle.OBD.DTCList": "P0301", "x": "\xe9\0z"}]
        events = [
            sample(-1000, s1=rng.uniform(0, 100), s2=float(number)),
            sample(0, s1=9999.0, s2=rng.gauss(0, 1e-300)),
            odd,
        ]
        spool.message(
            rows_body(*events[: 1 + number % 3]), sender=sender, outcome=1 + (number % 4 == 0), received_at=day
        )
        at, values = np.arange(-3, 0, dtype="<i4"), np.array([1.0, np.nan, -2.5])
        columns = {1: [2, values.astype("<f8").tobytes()], 2: [1, values.astype("<f4").tobytes()]}
        spool.message(pack(["sw", "", "sample", 3, at.tobytes(), columns]), sender=sender, enc=COLUMNS, flags=number)
    for ranges in ([], [(1, 0, 2**63 - 1), (2, 5, 6)]):
        spool.writer.rejection(spool.sender(peer(vehicle("r"))), rejection("bad_mac", 3, 5, RECEIVED_AT, ranges))


def tables(rows: SegmentRows) -> dict[str, pa.Table]:
    """The rows of each table, of all days."""
    found: dict[str, list[pa.Table]] = {}
    for part in (part for part in rows.rows if part.table in FORMS):
        found.setdefault(part.table, []).append(part.rows)
    return {name: pa.concat_tables(parts).unify_dictionaries() for name, parts in found.items()}


@pytest.mark.parametrize("seed", range(3))
def test_clickhouse_computes_the_hash_that_load_computed(bench: Any, seed: int) -> None:
    """By SQL alone, of what is stored, for each table and segment; counts too."""
    rng = random.Random(seed)
    for _ in range(2):
        fill_with_everything(bench.spool, bench.vehicle, rng)
        bench.spool.seal()
    bench.load_all()
    spool = bench.spool.identity.hex()
    for table in FORMS:
        stored = bench.clickhouse.rows(
            f"SELECT segment, {table}, {table}_hash FROM segments WHERE spool = {{s:String}} ORDER BY segment",
            {"s": spool},
        )
        assert all(row[1] for row in stored), table
        assert bench.clickhouse.rows(hash_query(table), {"spool": spool, "first": 1, "last": 2}) == stored


@pytest.fixture
def some_rows(bench: Any) -> dict[str, pa.Table]:
    fill_with_everything(bench.spool, bench.vehicle, random.Random(7))
    return tables(segment_rows(bench.spool.segment(), catalogue(), UnknownNames({})))


def test_the_order_of_rows_does_not_matter(some_rows: dict[str, pa.Table]) -> None:
    """ClickHouse keeps them in an order of its own."""
    rng = np.random.default_rng(1)
    for table, rows in some_rows.items():
        mixed = rows.take(pa.array(rng.permutation(rows.num_rows)))
        assert rows_hash(table, mixed) == rows_hash(table, rows)


def test_every_column_matters(some_rows: dict[str, pa.Table]) -> None:
    """One value of any column that is another one is another hash; so is a row less or a row twice."""
    for table, rows in some_rows.items():
        whole = rows_hash(table, rows)
        for name in rows.column_names:
            if name in ("spool", "segment"):
                continue
            assert rows_hash(table, changed(rows, name)) != whole, (table, name)
        assert rows_hash(table, rows.slice(1)) != whole
        assert rows_hash(table, pa.concat_tables([rows, rows.slice(0, 1)])) != whole


def changed(rows: pa.Table, name: str) -> pa.Table:
    """The same with one value of this column changed."""
    column = rows.column(name)
    values = column.to_pylist()
    row = next((place for place, value in enumerate(values) if value not in ([], {})), 0)
    values[row] = other(values[row])
    array = pa.array(values, type=column.type.value_type if pa.types.is_dictionary(column.type) else column.type)
    if pa.types.is_dictionary(column.type):
        array = array.dictionary_encode()
    return rows.set_column(rows.column_names.index(name), name, array)


def other(value: Any) -> Any:
    match value:
        case str():
            return value + "x"
        case bytes():
            return value + b"x"
        case list():
            return [*value[:-1], other(value[-1])]
        case tuple():
            return (*value[:-1], other(value[-1]))
        case dict():
            return {**value, "last_seq": value["last_seq"] - 1}
        case float():
            return -value if value else 1.0
        case int():
            return value + 1
        case _:
            return value.replace(microsecond=999_000 - value.microsecond)


def test_no_column_of_a_table_is_left_out(bench: Any) -> None:
    """A column that is added to a table has to get into its hash (or to be named here)."""
    for table, form in FORMS.items():
        described = bench.clickhouse.rows(f"DESCRIBE TABLE {table}")
        stored = {row[0] for row in described if row[2] != "ALIAS"} - {"spool", "segment"}
        lists = {name.partition(".")[0] for name in form.lists}
        names = {part for name in form.names for part in name.split("/")}
        covered = {*form.places, *names, *form.numbers, *form.times, *lists, *form.maps, *form.texts}
        assert stored == covered, table


def test_zero_and_minus_zero_are_two(bench: Any) -> None:
    """What was signed is compared bit by bit."""
    hashes = set()
    for value in (0.0, -0.0):
        bench.spool.message(rows_body(sample(0, s1=value)))
        rows = segment_rows(bench.spool.segment(), catalogue(), UnknownNames({}))
        [events] = [part for part in rows.rows if part.table == "events"]
        hashes.add(
            rows_hash(
                "events", Rows(*events).rows.drop_columns(["seq"]).append_column("seq", pa.array([0], pa.uint64()))
            )
        )
    assert len(hashes) == 2
