"""Step 6: every rule of bodies, in rows of MessagePack and JSON and in columns."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.units import BODY, EVENT, pack

from fleetgate.judge.body import MAX_AT_MS, Bodies, Columns
from fleetgate.judge.verdict import Reason, Reject

BODIES = Bodies({"Vehicle.Speed": 1, "Vehicle.OBD.DTCList": 44})
ROWS, JSON, COLUMNS = 1, 2, 3


def malformed(enc: int, data: bytes) -> bool:
    """Whether `data` is refused, with the one reason a body has."""
    try:
        BODIES.open(enc, data)
    except Reject as refusal:
        return refusal.reason is Reason.MALFORMED_BODY
    return False


def rows(*events: Any, software: Any = "s", config: Any = "c") -> bytes:
    return pack([software, config, list(events)])


def event(at: Any = 0, kind: Any = "sample", signals: Any = None, texts: Any = None) -> list[Any]:
    return [at, kind, {1: 1.0} if signals is None else signals, {} if texts is None else texts]


def as_json(*events: Any, **changed: Any) -> bytes:
    return msgspec.json.encode({"software": "s", "config": "c", "events": list(events)} | changed)


def json_event(**changed: Any) -> dict[str, Any]:
    return {"at": 0, "kind": "sample", "signals": {"Vehicle.Speed": 1.0}} | changed


def columns(
    *,
    software: Any = "s",
    kind: Any = "sample",
    n: Any = 2,
    at: Any = None,
    data: Any = None,
    extra: tuple[Any, ...] = (),
) -> bytes:
    stamps = struct.pack("<2i", -5, 0) if at is None else at
    values = {1: [1, struct.pack("<2f", 1.5, 2.5)]} if data is None else data
    return pack([software, "c", kind, n, stamps, values, *extra])


def f64(*values: float) -> list[Any]:
    return [2, struct.pack(f"<{len(values)}d", *values)]


MAP_16 = b"\xde"
TWICE_BY_NUMBER = b"\x93\xa1s\xa1c\x91\x94\x00\xa6sample\x82\x01" + pack(1.0) + b"\x01" + pack(2.0) + b"\x80"
TWICE_IN_MAP_16 = (
    b"\x93\xa1s\xa1c\x91\x94\x00\xa6sample\xde\x00\x02\x01" + pack(1.0) + b"\xcd\x00\x01" + pack(2.0) + b"\x80"
)
TWICE_A_TEXT = b"\x93\xa1s\xa1c\x91\x94\x00\xa6sample\x81\x01" + pack(1.0) + b"\x82\x2c\xa1a\x2c\xa1b"
TWICE_BY_PATH = b"\x93\xa1s\xa1c\x91\x94\x00\xa6sample\x82" + (pack("Vehicle.Speed") + pack(1.0)) * 2 + b"\x80"
TWICE_A_COLUMN = pack(["s", "c", "sample", 1, bytes(4)])[1:]

BAD_ROWS = {
    "nothing": b"",
    "no array": pack({}),
    "two fields": pack(["s", "c"]),
    "four fields": pack(["s", "c", [event()], 0]),
    "trailing bytes": rows(event()) + b"\x00",
    "cut off": rows(event())[:-1],
    "no events": rows(),
    "1,001 events": rows(*[event()] * 1001),
    "an event of three": rows(event()[:3]),
    "an event of five": rows([*event(), 0]),
    "a nested event": rows([event()]),
    "the future": rows(event(at=1)),
    "before 30 days": rows(event(at=-MAX_AT_MS - 1)),
    "a fraction of a millisecond": rows(event(at=-0.5)),
    "an unknown kind": rows(event(kind="crash")),
    "a kind in capitals": rows(event(kind="Sample")),
    "a sample without signals": rows(event(signals={})),
    "257 signals": rows(event(signals=dict.fromkeys(range(1, 258), 0.0))),
    "257 texts": rows(event(texts=dict.fromkeys(range(1, 258), ""))),
    "signal 0": rows(event(signals={0: 1.0})),
    "signal 65,536": rows(event(signals={65_536: 1.0})),
    "a negative signal": rows(event(signals={-1: 1.0})),
    "a signal of no name": rows(event(signals={"": 1.0})),
    "a name of 129 bytes": rows(event(signals={"n" * 129: 1.0})),
    "a name beyond ASCII": rows(event(signals={"Vehicle.Größe": 1.0})),
    "a name with a control character": rows(event(signals={"a\x07": 1.0})),
    "a text under a name beyond ASCII": rows(event(texts={"é": "x"})),
    "NaN": rows(event(signals={1: float("nan")})),
    "infinity": rows(event(signals={1: float("inf")})),
    "minus infinity": rows(event(signals={1: float("-inf")})),
    "a value as text": rows(event(signals={1: "1.0"})),
    "a value as bool": rows(event(signals={1: True})),
    "no value": rows(event(signals={1: None})),
    "a list as value": rows(event(signals={1: [1.0]})),
    "a text of 257 bytes": rows(event(texts={44: "x" * 257})),
    "a text of 129 two-byte characters": rows(event(texts={44: "é" * 129})),
    "a text that is bytes": rows(event(texts={44: b"x"})),
    "software of 129 bytes": rows(event(), software="x" * 129),
    "software of 65 two-byte characters": rows(event(), software="é" * 65),
    "config of 65 two-byte characters": rows(event(), config="é" * 65),
    "software that is a number": rows(event(), software=1),
    "a signal twice by number": TWICE_BY_NUMBER,
    "a signal twice in a long map": TWICE_IN_MAP_16,
    "a text twice": TWICE_A_TEXT,
    "a signal twice by path": TWICE_BY_PATH,
    "NaN under a path": rows(event(signals={"Vehicle.Speed": float("nan")})),
    "a text of 257 bytes under a path": rows(event(texts={"Vehicle.OBD.DTCList": "é" * 129})),
    "a signal by path and number": rows(event(signals={"Vehicle.Speed": 1.0, 1: 2.0})),
    "a text by path and number": rows(event(texts={"Vehicle.OBD.DTCList": "a", 44: "b"})),
    "an extension type": b"\x93\xa1s\xa1c\xd4\x01\x00",
    "text that is not UTF-8": b"\x93\xa2\xff\xfe\xa1c" + pack([event()]),
    "an array that announces 2^32 - 1": b"\x93\xa1s\xa1c\xdd\xff\xff\xff\xff",
    "a map that announces 2^32 - 1": b"\x93\xa1s\xa1c\x91\x94\x00\xa6sample\xdf\xff\xff\xff\xff\x01",
    "deep nesting": b"\x91" * 60_000,
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_are_malformed(name: str) -> None:
    """Each rule of section 4 refuses what breaks it, whatever the decoder makes of it."""
    assert malformed(ROWS, BAD_ROWS[name])


GOOD_ROWS = {
    "the example": BODY,
    "integer values": rows(event(signals={1: 7})),
    "a small float": b"\x93\xa1s\xa1c\x91\x94\x00\xa6sample\x81\x01\xca" + struct.pack(">f", 1.5) + b"\x80",
    "the largest f64": rows(event(signals={1: 1.7976931348623157e308})),
    "minus the largest f64": rows(event(signals={1: -1.7976931348623157e308})),
    "a heartbeat of nothing": rows(event(kind="heartbeat", signals={})),
    "30 days ago": rows(event(at=-MAX_AT_MS)),
    "1,000 events": rows(*[event()] * 1000),
    "256 signals and texts": rows(
        event(signals=dict.fromkeys(range(1, 257), 0.0), texts=dict.fromkeys(range(1, 257), ""))
    ),
    "signal 65,535": rows(event(signals={65_535: 1.0})),
    "a path of the catalogue": rows(event(signals={"Vehicle.Speed": 1.0})),
    "an unknown name": rows(event(signals={"Vendor.Secret Sauce": 1.0})),
    "a name of 128 bytes": rows(event(signals={"n" * 128: 1.0})),
    "a text under a path": rows(event(signals={"Vehicle.Speed": 1}, texts={"Vehicle.OBD.DTCList": "P0301"})),
    "a path and an unknown name": rows(event(signals={"Vehicle.Speed": 1.0, "Vendor.Secret Sauce": 2.0})),
    "a path and another number": rows(event(signals={"Vehicle.Speed": 1.0, 2: 2.0})),
    "a text of 128 two-byte characters": rows(event(texts={44: "é" * 128})),
    "software of 64 two-byte characters": rows(event(), software="é" * 64),
    "empty labels": rows(event(), software="", config=""),
}


@pytest.mark.parametrize("name", GOOD_ROWS)
def test_good_rows_are_opened(name: str) -> None:
    """What stands at the edge of a rule is allowed."""
    assert msgspec.structs.asdict(BODIES.open(ROWS, GOOD_ROWS[name]))["events"]


def test_rows_come_out_as_they_went_in() -> None:
    """Nothing is rounded, renamed or left out on the way."""
    body = BODIES.open(ROWS, BODY)
    assert msgspec.to_builtins(body) == ["2026.44.1", "cfg-7f3a", [EVENT]]


BAD_JSON = {
    "nothing": b"",
    "an unknown field": as_json(json_event(), extra=1),
    "an unknown field of an event": as_json(json_event(speed=1)),
    "no software": msgspec.json.encode({"config": "c", "events": [json_event()]}),
    "no kind": as_json({"at": 0, "signals": {"a": 1.0}}),
    "no events": as_json(),
    "a sample without signals": as_json({"at": 0, "kind": "sample"}),
    "trailing bytes": as_json(json_event()) + b"{}",
    "NaN": as_json(json_event()).replace(b"1.0", b"NaN"),
    "an infinite literal": as_json(json_event()).replace(b"1.0", b"1e999"),
    "a number that is no literal": as_json(json_event()).replace(b"1.0", b"01"),
    "the future": as_json(json_event(at=1)),
    "a name beyond ASCII": as_json(json_event(signals={"é": 1.0})),
    "a text of 129 two-byte characters": as_json(json_event(texts={"a": "é" * 129})),
    "software of 65 two-byte characters": as_json(json_event(), software="é" * 65),
    "a lone surrogate": as_json(json_event()).replace(b'"s"', b'"\\ud800"'),
    "not UTF-8": as_json(json_event()).replace(b'"s"', b'"\xff"'),
    "deep nesting": b"[" * 60_000,
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_is_malformed(name: str) -> None:
    """The rules of section 4 hold for objects as for arrays."""
    assert malformed(JSON, BAD_JSON[name])


def test_an_event_in_json_may_leave_out_what_is_empty() -> None:
    """`signals` and `texts` are optional in JSON only."""
    assert msgspec.structs.asdict(BODIES.open(JSON, as_json({"at": 0, "kind": "heartbeat"})))["events"]


def test_a_repeated_json_key_counts_the_last_time() -> None:
    """The one duplicate that is not seen: the last value stands, as section 4 says."""
    body: Any = BODIES.open(JSON, as_json(json_event()).replace(b'{"Vehicle.Speed":1.0}', b'{"a":1,"a":2}'))
    assert body.events[0].signals == {"a": 2.0}


BAD_COLUMNS = {
    "nothing": b"",
    "five fields": pack(["s", "c", "sample", 1, bytes(4)]),
    "seven fields": columns(extra=(0,)),
    "trailing bytes": columns() + b"\x00",
    "no rows": columns(n=0, at=b"", data={1: [1, b""]}),
    "8,001 rows": columns(n=8_001, at=bytes(4 * 8_001), data={1: [1, bytes(4 * 8_001)]}),
    "a time too few": columns(at=bytes(4)),
    "a time too many": columns(at=bytes(12)),
    "the future": columns(at=struct.pack("<2i", 0, 1)),
    "times as a list": columns(at=[0, 0]),
    "a value too few": columns(data={1: [1, bytes(4)]}),
    "f64 announced as f32": columns(data={1: [1, bytes(16)]}),
    "f32 announced as f64": columns(data={1: [2, bytes(8)]}),
    "type 0": columns(data={1: [0, bytes(8)]}),
    "type 3": columns(data={1: [3, bytes(8)]}),
    "a column of three": columns(data={1: [1, bytes(8), 0]}),
    "a sample without columns": columns(data={}),
    "257 columns": columns(data={number: [1, bytes(8)] for number in range(1, 258)}),
    "a column by path": columns(data={"Vehicle.Speed": [1, bytes(8)]}),
    "column 0": columns(data={0: [1, bytes(8)]}),
    "column 65,536": columns(data={65_536: [1, bytes(8)]}),
    "infinity in f64": columns(data={1: f64(0.0, float("inf"))}),
    "minus infinity in f32": columns(data={1: [1, struct.pack("<2f", float("-inf"), 0)]}),
    "an unknown kind": columns(kind="crash"),
    "software of 65 two-byte characters": columns(software="é" * 65),
    "a column twice": b"\x96" + TWICE_A_COLUMN + b"\x82\x01" + pack([1, bytes(4)]) + b"\x01" + pack([1, bytes(4)]),
}


@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_bad_columns_are_malformed(name: str) -> None:
    """Each rule of section 5 refuses what breaks it."""
    assert malformed(COLUMNS, BAD_COLUMNS[name])


def test_columns_come_out_value_for_value() -> None:
    """NaN stands for no value and passes; times and values are the bytes that were sent."""
    body = BODIES.open(COLUMNS, columns(data={1: f64(float("nan"), -0.0)}))
    assert isinstance(body, Columns)
    values = np.frombuffer(body.columns[1].data, "<f8")
    assert (body.n, bytes(body.at), np.isnan(values).tolist()) == (2, struct.pack("<2i", -5, 0), [True, False])


def test_8_000_rows_count_as_8_000_events() -> None:
    """The largest body in columns is one message of 8,000 events."""
    data = columns(n=8_000, at=bytes(32_000), data={1: [1, bytes(32_000)]})
    assert msgspec.structs.asdict(BODIES.open(COLUMNS, data))["n"] == 8_000


@pytest.mark.parametrize("enc", [ROWS, JSON, COLUMNS])
def test_a_body_of_another_encoding_is_malformed(enc: int) -> None:
    """`enc` says how the body is read; nothing is guessed."""
    others = {ROWS: BODY, JSON: as_json(json_event()), COLUMNS: columns()}
    del others[enc]
    assert all(malformed(enc, data) for data in others.values())
