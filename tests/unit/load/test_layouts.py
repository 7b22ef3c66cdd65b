"""Messages that look alike are opened together, and come out as if each had been opened by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.segments import SpoolOnDisk, pack, peer, rows_body, sample

from fleetgate.catalogue import catalogue
from fleetgate.load import opening
from fleetgate.load.columns import segment_rows
from fleetgate.load.layout import Layout, _Walk
from fleetgate.load.unknown import UnknownNames
from fleetgate.spool.reader import Segment


def rows_of(segment: Segment) -> dict[str, list[dict[str, Any]]]:
    """All rows of each table in the order of their messages, and what is undecodable."""
    loaded = segment_rows(segment, catalogue(), UnknownNames({}))
    tables: dict[str, list[dict[str, Any]]] = {"undecodable": [{"offset": at} for at in loaded.undecodable]}
    for part in loaded.rows:
        rows = part.rows.to_pylist()
        tables[part.table] = sorted(rows, key=lambda row: (row["record_offset"], row.get("event_index", 0)))
    return tables


def both_ways(segment: Segment, monkeypatch: pytest.MonkeyPatch, alike_from: int = 4) -> tuple[Any, Any, int]:
    """(rows with layouts, rows with every message opened by itself, messages that had a layout)."""
    taken: list[int] = []
    alike = opening._Opening._alike_piece

    def counted(self: Any, layout: Any, version: Any, words: Any, places: Any, numbers: Any) -> Any:
        taken.append(len(places))
        return alike(self, layout, version, words, places, numbers)

    with monkeypatch.context() as patched:
        patched.setattr(opening, "ALIKE", alike_from)
        patched.setattr(opening, "SHARE", 1e6)  # so few messages are not worth the try
        patched.setattr(opening._Opening, "_alike_piece", counted)
        together = rows_of(segment)
    with monkeypatch.context() as patched:
        patched.setattr(opening, "SHARE", 0)
        single = rows_of(segment)
    return together, single, sum(taken)


@pytest.fixture
def spool(tmp_path: Path) -> SpoolOnDisk:
    return SpoolOnDisk(tmp_path / "spool")


def columns_body(rows: int, values: dict[int, list[float]], kind: int = 1, at: int = -100) -> bytes:
    dtype = {1: "<f4", 2: "<f8"}[kind]
    times = np.arange(rows, dtype="<i4") * 100 + at * rows
    packed = {number: [kind, np.array(column, dtype).tobytes()] for number, column in values.items()}
    return pack(["sw", "cfg", "sample", rows, times.tobytes(), packed])


def test_rows_of_many_vehicles_have_a_layout(spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers differ and nothing else: all are taken together, and leaps and lies are flagged as ever."""
    for index in range(60):
        body = rows_body(sample(-900, s1=index * 9.0, s2=0.5), sample(-100, s1=index * 11.0, s2=0.5))
        spool.message(body, sender=peer(f"veh-{index % 3}"), outcome=1 + index % 2)
    together, single, taken = both_ways(spool.segment(), monkeypatch)
    assert together == single
    assert taken == 60
    assert any(row["implausible"] for row in together["events"] + together["held_events"])


def test_columns_with_a_gap_are_opened_by_themselves(spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NaN is no reading, so that message's rows are not like the others'."""
    for index in range(20):
        gap = float("nan") if index in (0, 7) else 2.0
        spool.message(columns_body(4, {1: [1.0, gap, 3.0, 400.0], 2: [5.0] * 4}, kind=1 + index // 10), enc=3)
    together, single, taken = both_ways(spool.segment(), monkeypatch)
    assert together == single
    assert taken == 18


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(rows_body(sample(1, s1=1.0)), id="after sent_at"),
        pytest.param(rows_body(sample(0, s1=float("inf"))), id="infinite"),
        pytest.param(rows_body(sample(0, s1=float("nan"))), id="not a number"),
        pytest.param(rows_body([0, "samplE", {1: 1.0}, {}]), id="another kind"),
        pytest.param(rows_body(sample(0, s1=1.0))[:-1] + b"\xc0", id="no map of texts"),
    ],
)
def test_a_layout_takes_nothing_that_the_judge_would_refuse(
    spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch, broken: bytes
) -> None:
    """Bytes of the same length and almost the same layout, but not a valid body: reported, and never a row."""
    for index in range(20):
        spool.message(broken if index == 11 else rows_body(sample(0, s1=float(index))))
    together, single, taken = both_ways(spool.segment(), monkeypatch)
    assert together == single
    assert (len(together["undecodable"]), len(together["events"]), taken) == (1, 19, 19)


def test_other_layouts_of_the_same_length_stand_apart(spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another signal, software or kind under the same length is another layout; unknown names have none."""
    for index in range(100):
        event = [sample(0, s1=1.5), sample(0, s2=1.5), [0, "sample", {60000 + index: 1.5}, {}]][index % 3]
        spool.message(rows_body(event, software=f"2026.44.{index % 2}"))
    together, single, taken = both_ways(spool.segment(), monkeypatch)
    assert together == single
    assert taken >= 50


def test_few_that_look_alike_are_no_piece_of_their_own(spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece is a block to ClickHouse: two alike among 50 of one length go with the others."""
    for index in range(50):
        spool.message(rows_body([0, "sample", {max(1, index): 1.5}, {}]))
    together, single, taken = both_ways(spool.segment(), monkeypatch, opening.ALIKE)
    assert together == single
    assert taken == 0


def test_a_time_of_eight_bytes_is_not_wrapped(spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """2**64 - 1500 milliseconds after sent_at are not 1500 before it, whatever the first message looks like."""
    for index in range(20):
        at = 2**64 - 1500 if index == 11 else 0
        event = b"\x94\xcf" + at.to_bytes(8, "big") + pack("sample") + b"\x81\x01" + pack(1.5) + b"\x80"
        spool.message(b"\x93" + pack("sw") + pack("cfg") + b"\x91" + event)
    together, single, taken = both_ways(spool.segment(), monkeypatch)
    assert together == single
    assert (len(together["undecodable"]), len(together["events"]), taken) == (1, 19, 0)


def work_of(segment: Segment, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """(numbers that layouts walked over, bytes compared with a mask, messages read by layouts)."""
    work = [0, 0, 0]
    walk, fits, read = _Walk._number, Layout.fits, Layout.read

    def walked(self: _Walk) -> Any:
        work[0] += 1
        return walk(self)

    def compared(self: Layout, messages: Any) -> Any:
        work[1] += messages.size
        return fits(self, messages)

    def counted(self: Layout, messages: Any) -> Any:
        work[2] += len(messages)
        return read(self, messages)

    with monkeypatch.context() as patched:
        patched.setattr(_Walk, "_number", walked)
        patched.setattr(Layout, "fits", compared)
        patched.setattr(Layout, "read", counted)
        opening.open_messages(segment, catalogue(), UnknownNames({}))
    return work[0], work[1], work[2]


def texts_of(size: int) -> bytes:
    """A body of so many bytes, most of them in texts: cheaper to open than to walk over numbers."""
    texts = dict.fromkeys(range(1, size // 150), "x" * 100)
    spare = size - len(rows_body([0, "sample", {1: 1.5}, texts]))
    for number in texts:
        texts[number] += "x" * min(spare, 150)
        spare -= min(spare, 150)
    return rows_body([0, "sample", {1: 1.5}, texts])


LARGE = rows_body(*[sample(0, s1=1.5, s2=2.5)] * 300)
ODD: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "large rows": (
        40,
        lambda i: rows_body(*[sample(0, **{f"s{n}": 1.5 for n in range(1, 31)})] * 190, software=f"{i:04}"),
    ),
    "small rows": (2000, lambda i: rows_body(sample(0, s1=1.5, s2=2.5, s3=3.5), software=f"{i:04}")),
    "rows of 60": (300, lambda i: rows_body(*[sample(0, s1=1.5, s2=2.5)] * 60, software=f"{i:04}")),
    "one large among texts": (
        200,
        lambda i: texts_of(len(LARGE)) if i else LARGE,
    ),
}


@pytest.mark.parametrize("odd", ODD)
def test_tries_in_vain_cost_a_fifth_at_most(odd: str, spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no two messages are alike, layouts walk over few numbers and compare few bytes: work, not time, is counted,
    at 2 us a number and 0.6 ns a byte, beside the 2 us and 2 ns a byte that opening a message takes at least."""
    count, body = ODD[odd]
    size = sum(len(spool.message(body(index))) for index in range(count))
    walked, compared, read = work_of(spool.segment(), monkeypatch)
    assert 2_000 * walked + 0.6 * compared <= 0.2 * (2_000 * count + 2 * size)
    assert read == 0


def test_one_devices_odd_messages_leave_the_others_their_layout(
    spool: SpoolOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short or as long as the others', before them or among them: they do not use up what others' messages bring."""
    for index in range(48):
        spool.message(rows_body([0, "sample", {f"x{index:02}": 1.5}, {}], software="", config=""), sender=peer("evil"))
    for index in range(3000):
        spool.message(rows_body(sample(0, s1=1.5, s2=2.5), software="odd" if index % 300 == 0 else "sw1"))
    assert work_of(spool.segment(), monkeypatch)[2] == 2990


NUMBERS = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**63), 2**64 - 1))
NAMES = st.sampled_from([1, 2, 3, 300, "Vehicle.Speed", "Vehicle.Unheard"])
EVENT = st.tuples(
    st.integers(-5000, 0), st.sampled_from(["sample", "fault"]), st.dictionaries(NAMES, NUMBERS, max_size=3)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(shapes=st.lists(st.lists(EVENT, min_size=1, max_size=3), min_size=1, max_size=4), data=st.data())
def test_any_mixture_comes_out_the_same(
    shapes: list[list[tuple[int, str, dict[Any, Any]]]],
    data: st.DataObject,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is sent, valid or not, repeated with other numbers or not: the two roads give the same rows."""
    spool = SpoolOnDisk(tmp_path_factory.mktemp("any") / "spool")
    for _ in range(30):
        shape = data.draw(st.sampled_from(shapes))
        times = [[at, kind, dict(signals), {}] for at, kind, signals in shape]
        times[0][0] = data.draw(st.sampled_from([shape[0][0], -1, 0]))
        spool.message(rows_body(*times))
    together, single, _ = both_ways(spool.segment(), monkeypatch)
    assert together == single
