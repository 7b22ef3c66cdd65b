"""A segment's rows, compared with what a plain reading of its messages says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.segments import DAY_MS, RECEIVED_AT, SENT_AT, SpoolOnDisk, pack, peer, rows_body, sample
from tests.spools import rejection

from fleetgate.catalogue import catalogue
from fleetgate.judge.body import Column, Columns, Event, Rows
from fleetgate.load.columns import SegmentRows, segment_rows
from fleetgate.load.readings import Collector, Numbering
from fleetgate.load.unknown import MAX_NAMES, UnknownNames


@pytest.fixture
def spool(tmp_path: Path) -> SpoolOnDisk:
    return SpoolOnDisk(tmp_path / "spool")


def loaded(spool: SpoolOnDisk, names: UnknownNames | None = None) -> SegmentRows:
    return segment_rows(spool.segment(), catalogue(), names or UnknownNames({}))


def rows_of(table: str, rows: SegmentRows) -> list[dict[str, Any]]:
    return [row for part in rows.rows if part.table == table for row in part.rows.to_pylist()]


def events(spool: SpoolOnDisk) -> list[dict[str, Any]]:
    return rows_of("events", loaded(spool))


def columns_body(at: list[int], columns: dict[int, list[float]], kind: str = "sample") -> bytes:
    """A body of `enc` 3 with f64 columns."""
    packed = {number: [2, np.array(values, "<f8").tobytes()] for number, values in columns.items()}
    return pack(["sw", "cfg", kind, len(at), np.array(at, "<i4").tobytes(), packed])


def test_a_row_carries_its_event_and_its_provenance(spool: SpoolOnDisk) -> None:
    """Every column of an ordinary event holds what envelope, peer and record say."""
    spool.message(rows_body(sample(-1500, s1=88.25, s2=12.5), [0, "fault", {}, {44: "P0301"}]), flags=2)
    first, second = events(spool)
    record = peer()
    assert first.pop("received_at").timestamp() * 1000 == RECEIVED_AT
    assert first.pop("sent_at").timestamp() * 1000 == SENT_AT
    assert first.pop("event_time").timestamp() * 1000 == SENT_AT - 1500
    assert first.pop("record_offset") > 0
    assert first == {
        "tenant": "acme",
        "vehicle_id": "veh-0001",
        "device_id": "veh-0001-tcu",
        "kind": "sample",
        "signal_ids": [1, 2],
        "signal_values": [88.25, 12.5],
        "implausible": [],
        "unknown_values": [],
        "unknown_dropped": 0,
        "texts": [],
        "epoch": 3,
        "seq": 0,
        "event_index": 0,
        "software": "2026.44.1",
        "config": "cfg-7f3a",
        "certificate_fingerprint": record.fingerprint.hex(),
        "key_id": 1,
        "transport": "mqtt",
        "edge_id": "edge-1",
        "spool": spool.identity.hex(),
        "segment": 1,
        "schema_version": 1,
        "policy_version": "p-1",
        "flags": 2,
        "decision": "",
    }
    assert (second["kind"], second["event_index"], second["texts"]) == ("fault", 1, [("Vehicle.OBD.DTCList", "P0301")])


def test_a_signal_is_the_same_by_path_and_by_number(spool: SpoolOnDisk) -> None:
    """Names of the catalogue become numbers, in MessagePack and in JSON."""
    spool.message(rows_body([0, "sample", {"Vehicle.Speed": 7}, {}]))
    spool.message(
        msgspec.json.encode(
            {"software": "s", "config": "c", "events": [{"at": 0, "kind": "sample", "signals": {"Vehicle.Speed": 7}}]}
        ),
        enc=2,
    )
    assert [(row["signal_ids"], row["signal_values"]) for row in events(spool)] == [([1], [7.0])] * 2


def test_not_a_number_in_a_column_is_no_reading(spool: SpoolOnDisk) -> None:
    """A packed column's NaN leaves the signal out of that row and keeps the others."""
    spool.message(columns_body([-20, -10], {1: [50.0, float("nan")], 2: [1.0, 1.0]}), enc=3)
    assert [(row["signal_ids"], row["signal_values"]) for row in events(spool)] == [([1, 2], [50.0, 1.0]), ([2], [1.0])]


def test_an_unknown_signal_stands_apart_and_is_flagged(spool: SpoolOnDisk) -> None:
    """A name or number outside the catalogue is kept under its name, beside the known readings."""
    spool.message(rows_body([0, "sample", {"Vehicle.New": 1.5, 1: 3.0, 60000: 2.5}, {"Vehicle.Note": "x"}]))
    spool.message(columns_body([0], {60001: [4.0]}), enc=3)
    first, second = events(spool)
    assert (first["signal_ids"], first["unknown_values"]) == ([1], [("Vehicle.New", 1.5), ("#60000", 2.5)])
    assert first["texts"] == [("Vehicle.Note", "x")]
    assert (second["signal_ids"], second["unknown_values"]) == ([], [("#60001", 4.0)])
    assert first["flags"] == second["flags"] == 256


def test_a_tenant_cannot_fill_the_dictionary_of_names(spool: SpoolOnDisk) -> None:
    """Behind a tenant's 64 unknown names values are counted and dropped; another tenant still has its own 64."""
    body = rows_body([0, "sample", {f"x{number}": 1.0 for number in range(MAX_NAMES + 5)}, {}])
    spool.message(body, sender=peer(tenant="noisy"))
    spool.message(rows_body([0, "sample", {"y": 1.0}, {}]), sender=peer(tenant="other"))
    noisy, other = events(spool)
    assert (len(noisy["unknown_values"]), noisy["unknown_dropped"]) == (MAX_NAMES, 5)
    assert (other["unknown_values"], other["unknown_dropped"]) == ([("y", 1.0)], 0)


def test_held_messages_go_to_a_table_of_their_own(spool: SpoolOnDisk) -> None:
    """What a quarantined device sent is in held_events and raw_messages, never in events."""
    spool.message(rows_body(sample(0, s1=1.0)), outcome=2)
    spool.message(rows_body(sample(0, s1=2.0)))
    rows = loaded(spool)
    assert [row["signal_values"] for row in rows_of("held_events", rows)] == [[1.0]]
    assert [row["signal_values"] for row in rows_of("events", rows)] == [[2.0]]
    assert [row["outcome"] for row in rows_of("raw_messages", rows)] == ["held", "accepted"]


def test_an_insert_touches_one_day(spool: SpoolOnDisk) -> None:
    """Messages on both sides of midnight are separate inserts with their own tokens; a range goes with its last one."""
    spool.message(rows_body(sample(0, s1=1.0)))
    spool.message(rows_body(sample(0, s1=2.0)), received_at=RECEIVED_AT + DAY_MS)
    parts = [(part.table, part.day - RECEIVED_AT // DAY_MS, part.rows.num_rows) for part in loaded(spool).rows]
    two_days = [(table, day, 1) for table in ("events", "raw_messages") for day in (0, 1)]
    assert parts == [*two_days, ("received_ranges", 1, 1), ("pulses", 0, 1), ("pulses", 1, 1)]


def test_the_signed_bytes_are_kept_as_received(spool: SpoolOnDisk) -> None:
    """raw_messages holds the envelope byte for byte, so that its tag can be checked again."""
    raw = spool.message(rows_body(sample(-5, s1=1.0), sample(0, s1=1.0)))
    (row,) = rows_of("raw_messages", loaded(spool))
    assert (row["envelope"], row["events"], row["key_digest"]) == (raw, 2, peer().key_digest.hex())


def test_a_refusal_is_a_row_of_its_peer(spool: SpoolOnDisk) -> None:
    """A rejection record keeps reason, count and the ranges whose signatures were good."""
    sender = spool.sender(peer())
    spool.writer.rejection(sender, rejection("stale_epoch", 7, RECEIVED_AT, RECEIVED_AT + 5, [(2, 10, 16)]))
    (row,) = rows_of("rejections", loaded(spool))
    assert (row["reason"], row["refused"], row["device_id"]) == ("stale_epoch", 7, "veh-0001-tcu")
    assert row["ranges"] == [{"epoch": 2, "first_seq": 10, "last_seq": 16}]


def test_a_message_that_cannot_be_opened_costs_only_itself(spool: SpoolOnDisk) -> None:
    """A record of a format that this version does not know is reported by offset; its neighbours are loaded."""
    spool.message(rows_body(sample(0, s1=1.0)))
    spool.message(b"\xc1")
    spool.message(rows_body(sample(0, s1=2.0)))
    rows = loaded(spool)
    assert (rows.counts["events"], len(rows.undecodable)) == (2, 1)


def test_a_segment_without_messages_has_no_rows(spool: SpoolOnDisk) -> None:
    """A segment that holds only a transition is loaded like every other."""
    spool.transition()
    assert loaded(spool).rows == []


NAMES = st.one_of(st.integers(1, 60), st.sampled_from(["Vehicle.Speed", "Vehicle.Unheard", "Vehicle.Own"]))
EVENTS = st.lists(st.dictionaries(NAMES, st.floats(-1e6, 1e6), max_size=6), min_size=1, max_size=8)


@given(bodies=st.lists(st.tuples(st.booleans(), EVENTS), min_size=1, max_size=5))
def test_flat_arrays_say_what_a_naive_reading_says(bodies: list[tuple[bool, list[dict[int | str, float]]]]) -> None:
    """For any mixture of row and column bodies, each event's readings and unknown values are those of its message."""
    known = catalogue()
    collector = Collector(known, Numbering(known), UnknownNames({}))
    expected: list[tuple[dict[int, float], dict[str, float]]] = []
    for packed, signals in bodies:
        plain = [_by_number_only(event) if packed else _named_once(event) for event in signals]
        collector.add("acme", _columns(plain) if packed else Rows("s", "c", [Event(0, "sample", e, {}) for e in plain]))
        expected += [_naive(event, known.numbers, known.paths) for event in plain]
    got = collector.finish()
    ends = np.cumsum(got.counts)
    for index, (readings, unknown) in enumerate(expected):
        span = slice(ends[index] - got.counts[index], ends[index])
        assert dict(zip(got.ids[span].tolist(), got.values[span].tolist(), strict=True)) == readings
        here = got.unknown_values.event == index
        names = [got.unknown_values.names[code] for code in got.unknown_values.name[here].tolist()]
        values = np.array(got.unknown_values.value)[here].tolist()
        assert dict(zip(names, values, strict=True)) == unknown


def _by_number_only(event: dict[int | str, float]) -> dict[int | str, float]:
    return {name: value for name, value in event.items() if isinstance(name, int)}


def _named_once(event: dict[int | str, float]) -> dict[int | str, float]:
    """The judge refuses a signal that stands there by path and by number."""
    return {name: value for name, value in event.items() if not (name == "Vehicle.Speed" and 1 in event)}


def _columns(events: list[dict[int | str, float]]) -> Columns:
    numbers = sorted({name for event in events for name in event if isinstance(name, int)})
    packed = {
        number: Column(2, np.array([event.get(number, np.nan) for event in events], "<f8").tobytes())
        for number in numbers
    }
    return Columns("s", "c", "sample", len(events), np.zeros(len(events), "<i4").tobytes(), packed)


def _naive(event: dict[Any, float], numbers: Any, paths: Any) -> tuple[dict[int, float], dict[str, float]]:
    readings: dict[int, float] = {}
    unknown: dict[str, float] = {}
    for name, value in event.items():
        number = numbers.get(name, name)
        if number in paths:
            readings[number] = value
        else:
            unknown[name if isinstance(name, str) else f"#{name}"] = value
    return readings, unknown


def test_a_name_is_not_taken_for_a_number(spool: SpoolOnDisk) -> None:
    """A number that is not in the catalogue is called `#` and itself; a name that looks so gets another one."""
    spool.message(rows_body([0, "sample", {60001: 1.0, "#60001": 2.0, "##60001": 3.0}, {}]))
    [event] = events(spool)
    assert sorted(event["unknown_values"]) == [("###60001", 3.0), ("##60001", 2.0), ("#60001", 1.0)]
