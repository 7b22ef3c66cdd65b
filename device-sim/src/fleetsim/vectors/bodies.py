"""Decides the cases of sections 4 and 5 of schemas/envelope.md: the three encodings, each rule at and past its edge."""

import struct
from collections.abc import Iterator
from typing import Any

from fleetsim import encode
from fleetsim.encode import OLDEST_AT_MS, Event, Name
from fleetsim.vectors.case import Case, dump, message, pack

_MALFORMED = "malformed_body"
_INF, _NAN = float("inf"), float("nan")
_SPEED = "Vehicle.Speed"


def cases() -> Iterator[Case]:
    """All of them."""
    yield from _good_rows()
    yield from _bad_rows()
    yield from _good_json()
    yield from _bad_json()
    yield from _good_columns()
    yield from _bad_columns()


def _body(*events: Event, software: str = "2026.44.1", config: str = "cfg-7f3a") -> encode.Body:
    return encode.Body(software, config, list(events))


def _event(at: int = -20, kind: str = "sample", signals: dict[Name, float] | None = None) -> Event:
    return Event(at, kind, {1: 50.5} if signals is None else signals, {})


def _good(name: str, what: str, body: encode.Body, enc: int = 1, **more: Any) -> Case:
    raw = message(enc=enc, body=encode.encode_body(enc, body))
    prefix = {1: "rows", 2: "json-rows", 3: "columns"}[enc]
    return Case(f"{prefix}-{name}", what, "accepted", raw, body=body, flags=[], **more)


def _good_rows() -> Iterator[Case]:
    kinds = ("trip_start", "trip_end", "charge_start", "charge_end", "fault", "heartbeat")
    by_path = _body(_event(signals={_SPEED: 88.25, "Vehicle.CurrentLocation.Latitude": 48.137154}))
    numbers: dict[Name, float] = {i: float(i) / 4 for i in range(1, 257)}
    unknown = _body(_event(signals={65_535: 1.5, "Vehicle.Test.New": 2.5, 1: 3.0}))
    texts = Event(0, "fault", {}, {44: "é" * 128, "Vehicle.Test.Text": ""})
    many_texts = Event(0, "fault", {}, {f"T{i}": "x" for i in range(256)})
    yield _good("by-path", "Signals may be named by their path.", by_path, named_by="path")
    yield _good("every-kind", "Every other kind may be without signals.", _body(*(Event(0, k, {}, {}) for k in kinds)))
    yield _good("events-1000", "A message has up to 1,000 events.", _body(*[_event(-i) for i in range(1_000)]))
    yield _good("signals-256", "An event has up to 256 signals.", _body(_event(signals=numbers)))
    yield _good("texts-256", "An event has up to 256 texts.", _body(many_texts))
    yield _good("text-256-bytes", "A text has up to 256 bytes, or none.", _body(texts))
    yield _good("at-0", "An event may happen at `sent_at`.", _body(_event(0)))
    yield _good("at-30-days", "An event may be 30 days old.", _body(_event(OLDEST_AT_MS)))
    yield _good("unknown-signal", "What is not in the catalogue is stored apart.", unknown, rebuilds=["envelope"])
    yield _good(
        "names-128", "Software and config have up to 128 bytes.", _body(_event(), software="s" * 128, config="c" * 128)
    )
    yield _good("names-empty", "Software and config may be empty.", _body(_event(), software="", config=""))
    yield _good(
        "extreme", "Every finite number is one.", _body(_event(signals={1: 1.7976931348623157e308, 2: -0.0, 3: 5e-324}))
    )
    whole = pack(["2026.44.1", "cfg-7f3a", [[-20, "sample", {1: 50, 2: -3}, {}]]])
    yield Case(
        "rows-integers",
        "An integer is taken as its f64 value.",
        "accepted",
        message(body=whole),
        body=_body(_event(signals={1: 50.0, 2: -3.0})),
        rebuilds=["envelope"],
    )
    long_name = "Vehicle." + "x" * 120
    yield _good(
        "name-128",
        "A name has up to 128 bytes.",
        _body(_event(signals={long_name: 1.0})),
        named_by="path",
        rebuilds=["envelope"],
    )


def _bad_rows() -> Iterator[Case]:
    def bad(name: str, what: str, raw: bytes) -> Case:
        return Case(f"rows-{name}", what, _MALFORMED, message(body=raw))

    def rows(events: Any, software: Any = "2026.44.1", config: Any = "cfg-7f3a") -> bytes:
        return pack([software, config, events])

    def one(at: Any = -20, kind: Any = "sample", signals: Any = None, texts: Any = None) -> bytes:
        return rows([[at, kind, {1: 50.5} if signals is None else signals, {} if texts is None else texts]])

    def twice(first: bytes, second: bytes) -> bytes:
        """One event with a signal map of two hand-made pairs, which no encoder here would write."""
        return rows([])[:-1] + b"\x91\x94" + pack(-20) + pack("sample") + b"\x82" + first + second + b"\x80"

    number, path, value = pack(1), pack(_SPEED), pack(1.5)
    yield bad("not-msgpack", "0xc1 is no MessagePack.", b"\xc1")
    yield bad("trailing-byte", "Nothing follows the body.", one() + b"\x00")
    yield bad("truncated", "A body that ends early is none.", one()[:-1])
    yield bad("arity-2", "A body has three fields.", pack(["s", "c"]))
    yield bad("arity-4", "A body has no fourth field.", pack(["s", "c", [[0, "heartbeat", {}, {}]], 1]))
    yield bad(
        "map", "A body in MessagePack is an array, not a map.", pack({"software": "s", "config": "c", "events": []})
    )
    yield bad("events-0", "A message has at least one event.", rows([]))
    yield bad("events-1001", "A message has at most 1,000 events.", rows([[0, "sample", {1: 1.0}, {}]] * 1_001))
    yield bad("event-arity-3", "An event has four fields.", rows([[0, "sample", {1: 1.0}]]))
    yield bad("event-arity-5", "An event has no fifth field.", rows([[0, "sample", {1: 1.0}, {}, 0]]))
    yield bad("at-1", "An event does not happen after `sent_at`.", one(at=1))
    yield bad("at-over-30-days", "An event is at most 30 days old.", one(at=OLDEST_AT_MS - 1))
    yield bad("at-float", "`at` is an integer.", one(at=-20.5))
    yield bad("kind", "The kinds are a closed set.", one(kind="teleport"))
    yield bad("kind-number", "A kind is a text.", one(kind=1))
    yield bad("sample-empty", "A sample has at least one signal.", one(signals={}))
    yield bad("signals-257", "An event has at most 256 signals.", one(signals=dict.fromkeys(range(1, 258), 1.0)))
    yield bad("texts-257", "An event has at most 256 texts.", one(texts={f"T{i}": "" for i in range(257)}))
    yield bad("text-257-bytes", "A text has at most 256 bytes.", one(texts={44: "x" * 257}))
    yield bad("text-257-utf8", "Bytes are counted, not letters.", one(texts={44: "é" * 128 + "x"}))
    yield bad("text-number", "A text is a text.", one(texts={44: 301}))
    yield bad("text-utf8", "A text is UTF-8.", one(texts={44: "Q"}).replace(b"\xa1Q", b"\xa1\xff"))
    yield bad("nan", "NaN is not a finite number.", one(signals={1: _NAN}))
    yield bad("inf", "Infinity is not a finite number.", one(signals={1: _INF}))
    yield bad("minus-inf", "Nor is minus infinity.", one(signals={1: -_INF}))
    yield bad("f32-nan", "NaN as f32 is no better.", one(signals={1: 1.5}).replace(value, b"\xca\x7f\xc0\x00\x00"))
    yield bad("value-bool", "A value is a number, not true.", one(signals={1: True}))
    yield bad("value-nil", "A value is a number, not nil.", one(signals={1: None}))
    yield bad("value-str", "A value is a number, not a text.", one(signals={1: "1"}))
    yield bad("value-nested", "Values do not nest.", one(signals={1: {1: 1.0}}))
    yield bad("signal-0", "Numbers start at 1.", one(signals={0: 1.0}))
    yield bad("signal-65536", "Numbers end at 65,535.", one(signals={65_536: 1.0}))
    yield bad("signal-negative", "Numbers are not negative.", one(signals={-1: 1.0}))
    yield bad("signal-name-129", "A name has at most 128 bytes.", one(signals={"x" * 129: 1.0}))
    yield bad("signal-name-unicode", "A name is printable ASCII.", one(signals={"Vehicle.Größe": 1.0}))
    yield bad("signal-name-control", "A name has no control characters.", one(signals={"Vehicle\n": 1.0}))
    yield bad("signal-twice", "A signal is there once.", twice(number + value, number + value))
    yield bad("signal-path-twice", "A path is there once.", twice(path + value, path + value))
    yield bad("signal-alias", "By path and by number is twice.", twice(number + value, path + value))
    yield bad("software-129", "Software has at most 128 bytes.", rows([[0, "heartbeat", {}, {}]], software="s" * 129))
    yield bad("config-129", "Config has at most 128 bytes.", rows([[0, "heartbeat", {}, {}]], config="c" * 129))
    yield bad("software-nil", "Software is a text.", rows([[0, "heartbeat", {}, {}]], software=None))
    yield bad("deep", "However deep the nesting.", b"\x91" * 20_000 + b"\xc0")
    yield bad("huge-count", "A length that the bytes do not hold.", b"\x93\xa1s\xa1c\xdd\xff\xff\xff\xff")


def _good_json() -> Iterator[Case]:
    full = _body(Event(-20, "sample", {_SPEED: 88.25}, {"Vehicle.OBD.DTCList": "P0301"}))
    yield _good("plain", "Rows in JSON.", full, 2, named_by="path")
    bare = _body(Event(0, "heartbeat", {}, {}))
    yield _good("left-out", "An event may leave out signals and texts.", bare, 2, named_by="path")
    for name, what, raw, value in (
        (
            "duplicate-key",
            "Of a signal that is there twice the last counts.",
            b'{"Vehicle.Speed":1,"Vehicle.Speed":2.5}',
            2.5,
        ),
        ("integer", "An integer is taken as its f64 value.", b'{"Vehicle.Speed":50}', 50.0),
        ("exponent", "A number may have an exponent.", b'{"Vehicle.Speed":5.05e1}', 50.5),
    ):
        text = b'{"software":"s","config":"c","events":[{"at":-20,"kind":"sample","signals":%s}]}' % raw
        body = _body(_event(signals={_SPEED: value}), software="s", config="c")
        signed = message(enc=2, body=text)
        yield Case(f"json-rows-{name}", what, "accepted", signed, body=body, named_by="path", rebuilds=["envelope"])


def _bad_json() -> Iterator[Case]:
    good = dump({"software": "s", "config": "c", "events": [{"at": -20, "kind": "sample", "signals": {_SPEED: 1.5}}]})

    def bad(name: str, what: str, old: bytes, new: bytes) -> Case:
        if good.count(old) != 1:
            raise AssertionError(f"{name}: {old!r} is not in the body once")
        return Case(f"json-rows-{name}", what, _MALFORMED, message(enc=2, body=good.replace(old, new)))

    yield bad("unknown-field", "A body has no other fields.", b'{"software"', b'{"x":1,"software"')
    yield bad("missing-field", "A body has all of its fields.", b'"config":"c",', b"")
    yield bad("event-field", "An event has no other fields.", b'{"at"', b'{"x":1,"at"')
    yield bad("event-no-at", "An event has its `at`.", b'"at":-20,', b"")
    yield bad("nan", "NaN is not JSON.", b"1.5", b"NaN")
    yield bad("overflow", "1e999 is not finite.", b"1.5", b"1e999")
    yield bad("value-bool", "A value is a number.", b"1.5", b"true")
    yield bad("value-null", "A value is not null.", b"1.5", b"null")
    yield bad("value-str", "A value is not a text.", b"1.5", b'"1.5"')
    yield bad("nested", "Values do not nest.", b"1.5", b"[1.5]")
    yield bad("at-1", "An event does not happen after `sent_at`.", b"-20", b"1")
    yield bad("at-fraction", "`at` is an integer.", b"-20", b"-20.5")
    yield bad("kind", "The kinds are a closed set.", b'"sample"', b'"teleport"')
    yield bad("sample-empty", "A sample has at least one signal.", b'{"Vehicle.Speed":1.5}', b"{}")
    yield bad("events-0", "A message has at least one event.", good[good.index(b"[") : good.index(b"]") + 1], b"[]")
    yield bad("trailing", "Nothing follows the body.", b"}]}", b"}]}{}")
    yield bad("truncated", "A body that ends early is none.", b"}]}", b"}]")
    yield bad("utf8", "JSON is UTF-8.", b'"s"', b'"\xff"')
    yield bad("array", "A body in JSON is an object, not an array.", good, b'["s","c",[]]')
    yield bad("name-unicode", "A name is printable ASCII.", b"Vehicle.Speed", "Vehicle.Größe".encode())
    yield bad("deep", "However deep the nesting.", good, b"[" * 20_000)
    rows = encode.encode_body(1, _body(_event()))
    yield Case("json-rows-msgpack", "The encoding is as `enc` says.", _MALFORMED, message(enc=2, body=rows))


def _good_columns() -> Iterator[Case]:
    def series(n: int, *numbers: int) -> encode.Body:
        return _body(*(Event(i - n, "sample", dict.fromkeys(numbers, i / 4), {}) for i in range(n)))

    holes = _body(Event(-2, "sample", {1: 1.5}, {}), Event(-1, "sample", {13: 2.5}, {}), Event(0, "sample", {}, {}))
    yield _good("plain", "Two signals, three rows, f32.", series(3, 1, 13), 3)
    wide = _body(Event(-1, "sample", {7: 48.137154}, {}), Event(0, "sample", {7: 48.137155}, {}))
    yield _good("f64", "Values that need it are f64.", wide, 3)
    yield _good("nan", "NaN means: no value in that row.", holes, 3)
    yield _good("n-1", "One row is enough.", series(1, 1), 3)
    yield _good("n-8000", "8,000 rows are allowed.", series(8_000, 1), 3)
    many = _body(Event(0, "sample", dict.fromkeys(range(1, 257), 1.0), {}))
    yield _good("columns-256", "256 columns are allowed.", many, 3)
    yield _good("no-columns", "Only a sample needs a column.", _body(Event(0, "heartbeat", {}, {})), 3)
    yield _good(
        "unknown-signal",
        "A number outside the catalogue is stored apart.",
        _body(Event(0, "sample", {1: 1.0, 60_000: 2.0}, {})),
        3,
        rebuilds=["envelope"],
    )


def _bad_columns() -> Iterator[Case]:
    def bad(name: str, what: str, *fields: object) -> Case:
        return Case(f"columns-{name}", what, _MALFORMED, message(enc=3, body=pack(fields)))

    def at(*times: int) -> bytes:
        return struct.pack(f"<{len(times)}i", *times)

    def f32(*values: float) -> list[object]:
        return [1, struct.pack(f"<{len(values)}f", *values)]

    head, two = ("s", "c", "sample"), at(-1, 0)
    yield bad("n-0", "There is at least one row.", *head, 0, b"", {1: f32()})
    yield bad("n-8001", "There are at most 8,000 rows.", *head, 8_001, bytes(4 * 8_001), {1: [1, bytes(4 * 8_001)]})
    yield bad("n-short", "`n` agrees with the columns.", *head, 1, two, {1: f32(1, 2)})
    yield bad("n-negative", "`n` is not negative.", *head, -1, two, {1: f32(1, 2)})
    yield bad("n-float", "`n` is an integer.", *head, 2.0, two, {1: f32(1, 2)})
    yield bad("n-huge", "`n` promises more than there is.", *head, 2**31, two, {1: f32(1, 2)})
    yield bad("at-short", "Every row has its time.", *head, 2, at(0), {1: f32(1, 2)})
    yield bad("at-ragged", "Times are whole.", *head, 2, two[:-1], {1: f32(1, 2)})
    yield bad("at-1", "No row lies after `sent_at`.", *head, 2, at(-1, 1), {1: f32(1, 2)})
    yield bad("at-str", "Times are bytes.", *head, 2, "12345678", {1: f32(1, 2)})
    yield bad("column-short", "A column has a value for each row.", *head, 2, two, {1: f32(1)})
    yield bad("column-long", "A column has no more values than rows.", *head, 2, two, {1: f32(1, 2, 3)})
    yield bad("column-ragged", "Values are whole.", *head, 2, two, {1: [1, bytes(7)]})
    yield bad("type-0", "There is no type 0.", *head, 2, two, {1: [0, bytes(8)]})
    yield bad("type-3", "There is no type 3.", *head, 2, two, {1: [3, bytes(8)]})
    yield bad("type-width", "Type 2 has eight bytes a value.", *head, 2, two, {1: [2, bytes(8)]})
    yield bad("inf-f32", "Infinity is malformed.", *head, 2, two, {1: f32(1, _INF)})
    yield bad("inf-f64", "Infinity is malformed in f64 too.", *head, 2, two, {1: [2, struct.pack("<2d", -_INF, 1)]})
    yield bad("signal-0", "Numbers start at 1.", *head, 2, two, {0: f32(1, 2)})
    yield bad("signal-65536", "Numbers end at 65,535.", *head, 2, two, {65_536: f32(1, 2)})
    yield bad("signal-path", "Columns are named by number.", *head, 2, two, {_SPEED: f32(1, 2)})
    yield bad("columns-257", "There are at most 256 columns.", *head, 1, at(0), {i: f32(1) for i in range(1, 258)})
    yield bad("sample-empty", "A sample has at least one column.", *head, 2, two, {})
    yield bad("kind", "The kinds are a closed set.", "s", "c", "teleport", 2, two, {1: f32(1, 2)})
    yield bad("arity-5", "There are six fields.", *head, 2, two)
    yield bad("arity-7", "There is no seventh field.", *head, 2, two, {1: f32(1, 2)}, 0)
    yield bad("column-arity", "A column has two fields.", *head, 2, two, {1: [1, bytes(8), 0]})
    yield bad("software-129", "Software has at most 128 bytes.", "s" * 129, "c", "sample", 2, two, {1: f32(1, 2)})
    column = pack({1: f32(1, 2)})[1:]
    raw = pack([*head, 2, two, {}])[:-1] + b"\x82" + column + column
    yield Case("columns-signal-twice", "A signal is there once.", _MALFORMED, message(enc=3, body=raw))
