"""Bodies of every kind, one behind another, as flat arrays: each value at its event, and nothing lost."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.segments import pack

from fleetgate.catalogue import catalogue
from fleetgate.judge.body import COLUMNS, ROWS_JSON, ROWS_MSGPACK
from fleetgate.load.readings import KINDS, Collector, Numbering, Readings, Sparse
from fleetgate.load.unknown import UnknownNames

CATALOGUE = catalogue()
PATHS = ["Vehicle.Speed", "Vehicle.TraveledDistance", "Vehicle.OBD.DTCList", "Vehicle.Unheard", "Vehicle.Unseen"]
NUMBERS = [1, 2, 44, 60_000, 60_001]  # the first three of each are the same signals

Event = tuple[int, str, dict[Any, float], dict[Any, str]]


def events(keys: list[Any]) -> st.SearchStrategy[list[Event]]:
    """1 to 3 events that name signals out of `keys`."""
    values = st.one_of(st.integers(-100, 100), st.floats(-1e6, 1e6))
    event = st.tuples(
        st.integers(-100_000, 0),
        st.sampled_from(["fault", "heartbeat"]),
        st.dictionaries(st.sampled_from(keys), values, max_size=4),
        st.dictionaries(st.sampled_from(keys), st.text("ab", max_size=3), max_size=2),
    )
    return st.lists(event, min_size=1, max_size=3)


def columns_body(rows: list[Event], keys: list[int]) -> bytes:
    """The rows as columns; a signal that a row lacks is NaN there."""
    at = np.array([at for at, _, _, _ in rows], "<i4").tobytes()
    columns = {key: [2, np.array([some.get(key, np.nan) for _, _, some, _ in rows], "<f8").tobytes()] for key in keys}
    return pack(["sw", "cfg", "fault", len(rows), at, columns])


def name_of(key: int | str) -> tuple[bool, str]:
    """Whether the catalogue has it, and what it is called."""
    if isinstance(key, str):
        return key in CATALOGUE.numbers, key
    return key in CATALOGUE.paths, CATALOGUE.paths.get(key, f"#{key}")


def values_of(sparse: Sparse) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for event, name, value in zip(sparse.event.tolist(), sparse.name.tolist(), sparse.value.to_pylist(), strict=True):
        found.setdefault(event, {})[sparse.names[name]] = value
    return found


def told(readings: Readings) -> list[Any]:
    """(at, kind, readings by path, unknown values, texts, whether flagged) of each event."""
    ends = readings.counts.cumsum()
    unknown, texts = values_of(readings.unknown_values), values_of(readings.texts)
    return [
        (
            int(readings.at[index]),
            KINDS[readings.kind[index]],
            [
                (CATALOGUE.paths[number], value)
                for number, value in zip(
                    readings.ids[end - count : end].tolist(), readings.values[end - count : end].tolist(), strict=True
                )
            ],
            unknown.get(index, {}),
            texts.get(index, {}),
            bool(readings.unknown[index]),
        )
        for index, (count, end) in enumerate(zip(readings.counts.tolist(), ends.tolist(), strict=True))
    ]


def expected(event: Event) -> Any:
    """The same, from the event as it was sent."""
    at, kind, signals, texts = event
    named = [(*name_of(key), value) for key, value in signals.items()]
    written = [(*name_of(key), text) for key, text in texts.items()]
    return (
        at,
        kind,
        [(name, float(value)) for known, name, value in named if known],
        {name: float(value) for known, name, value in named if not known},
        {name: text for _, name, text in written},
        not all(known for known, *_ in named + written),
    )


BODIES = st.lists(
    st.one_of(
        st.tuples(st.just(ROWS_MSGPACK), events(NUMBERS)),
        st.tuples(st.just(ROWS_MSGPACK), events(PATHS[:3])),
        st.tuples(st.just(ROWS_MSGPACK), events([*PATHS, 60_000, 3])),
        st.tuples(st.just(ROWS_JSON), events(PATHS)),
        st.tuples(st.just(COLUMNS), events([1, 2, 3, 60_000])),
    ),
    max_size=8,
)


@given(bodies=BODIES)
def test_any_bodies_come_out_event_by_event(bodies: list[tuple[int, list[Event]]]) -> None:
    """By number, by path, unknown, with texts, in JSON and in columns: what each event said, in the order sent."""
    collector = Collector(CATALOGUE, Numbering(CATALOGUE), UnknownNames({}))
    sent: list[Event] = []
    for enc, some in bodies:
        if enc == COLUMNS:
            data = columns_body(some, keys := [1, 2, 3, 60_000])
            some = [(at, "fault", {key: of[key] for key in keys if key in of}, {}) for at, _, of, _ in some]
        elif enc == ROWS_JSON:
            said = [{"at": at, "kind": kind, "signals": of, "texts": texts} for at, kind, of, texts in some]
            data = msgspec.json.encode({"software": "sw", "config": "cfg", "events": said})
        else:
            data = pack(["sw", "cfg", some])
        assert collector.add("acme", CATALOGUE.bodies.open(enc, data)) == len(some)
        sent += some
    assert told(collector.finish()) == list(map(expected, sent))


def test_names_are_admitted_for_the_tenant_of_their_message() -> None:
    """Two tenants in one piece: each has its own 64 names, and what is dropped is counted at its event."""
    names = UnknownNames({"full": {f"#{60_000 + index}" for index in range(64)}})
    collector = Collector(CATALOGUE, Numbering(CATALOGUE), names)
    for tenant in ("acme", "full", "acme"):
        event = [0, "fault", {1: 1.0, 61_000: 2.0}, {61_001: "x"}]
        collector.add(tenant, CATALOGUE.bodies.open(ROWS_MSGPACK, pack(["sw", "cfg", [event]])))
    readings = collector.finish()
    assert readings.dropped.tolist() == [0, 2, 0]
    assert readings.unknown_values.event.tolist() == [0, 2]
    assert names.unsaved() == [("acme", "#61000"), ("acme", "#61001")]
