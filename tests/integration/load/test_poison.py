"""One row that ClickHouse refuses costs its message and nothing else, whatever is repeated or killed on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
from tests.integration.load.conftest import WRITER, Bench
from tests.integration.load.test_exactly_once import Killed
from tests.integration.load.test_retry import parked, retry, told, why
from tests.segments import peer, rows_body, sample

from fleetgate.catalogue import catalogue
from fleetgate.errors import ClickHouseAway
from fleetgate.load import isolation
from fleetgate.load.clickhouse import ClickHouse, ServerClickHouse
from fleetgate.load.migrations import migrate
from fleetgate.load.owner import Owner

MESSAGES, EVENTS = 400, 3
BAD = 50.5


@contextmanager
def refusing(clickhouse: ClickHouse, condition: str, table: str = "events") -> Iterator[None]:
    clickhouse.command(f"ALTER TABLE {table} ADD CONSTRAINT poison CHECK NOT ({condition})")
    try:
        yield
    finally:
        clickhouse.command(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS poison")


def fill(bench: Any, *bad: int) -> str:
    """A segment of 400 messages of three events, those numbered in `bad` with a poisonous one; its vehicle."""
    sender = peer(bench.vehicle("v"))
    for number in range(MESSAGES):
        values = [50.0, BAD if number in bad else 51.0, 52.0]
        bench.spool.message(
            rows_body(*(sample(at, s1=one) for at, one in zip((-2000, -1000, 0), values, strict=True))), sender=sender
        )
    bench.spool.seal()
    return sender.vehicle_id


def whole(bench: Any, vehicle: str) -> tuple[int, int, int]:
    """Events, numbers of messages among them, and events in the rollup."""
    [[events, numbers]] = bench.clickhouse.rows(
        "SELECT count(), uniqExact(seq) FROM events WHERE spool = {s:String}", {"s": bench.spool.identity.hex()}
    )
    [[rolled]] = bench.clickhouse.rows(
        "SELECT sum(readings) FROM signal_minute WHERE vehicle_id = {v:String}", {"v": vehicle}
    )
    return events, numbers, rolled


def all_but(bad: int) -> tuple[int, int, int]:
    left = MESSAGES - bad
    return left * EVENTS, left, left * EVENTS


POISON = f"has(signal_values, {BAD})"


@pytest.mark.parametrize("bad", [(0,), (399,), (17, 18, 250)], ids=["the first", "the last", "three"])
def test_a_bad_row_costs_its_message(bench: Any, bad: tuple[int, ...]) -> None:
    """All others are loaded, rollups too; the segment is parked and says which records; the next one is loaded."""
    with refusing(bench.clickhouse, POISON):
        vehicle = fill(bench, *bad)
        fill(bench)
        bench.load_all()
    loaded = zip(all_but(len(bad)), all_but(0), strict=True)
    assert whole(bench, vehicle) == tuple(map(sum, loaded))
    error = json.loads(parked(bench).with_suffix(".error.json").read_text())
    assert (error["why"], error["code"]) == ("refused in part", 469)
    assert f"{len(bad) * EVENTS} rows of events" in error["error"]
    assert (bench.count("raw_messages"), bench.count("received_ranges")) == (2 * MESSAGES, 2)
    refused = "SELECT refused FROM segments WHERE spool = {s:String} ORDER BY segment"
    assert bench.clickhouse.rows(refused, {"s": bench.spool.identity.hex()}) == [[len(bad) * EVENTS], [0]]


def test_what_was_refused_comes_when_its_cause_is_mended(bench: Any) -> None:
    """On demand, once, counted; and nothing stays behind in parked/."""
    with refusing(bench.clickhouse, POISON):
        vehicle = fill(bench, 5, 300)
        bench.load_all()
    retry(bench)
    assert whole(bench, vehicle) == all_but(0)
    assert told(bench)["events"] == MESSAGES * EVENTS
    assert list((bench.spool.directory / "parked").iterdir()) == []


def test_a_retry_takes_what_it_can(bench: Any) -> None:
    """Of two bad messages one is mended: it comes, and the other stays parked until its turn; both are counted."""
    with refusing(bench.clickhouse, f"{POISON} AND seq IN (5, 300)"):
        vehicle = fill(bench, 5, 300)
        bench.load_all()
    with refusing(bench.clickhouse, f"{POISON} AND seq = 300"):
        retry(bench)
    assert (whole(bench, vehicle), why(bench)) == (all_but(1), "refused in part")
    retry(bench)
    assert (whole(bench, vehicle), told(bench)["events"]) == (all_but(0), MESSAGES * EVENTS)


class Interrupts:
    """The real ClickHouse; after so many inserts into `events`, refused ones counted, something happens to load."""

    def __init__(self, clickhouse: ClickHouse, inserts: int, done: bool, then: Callable[[], None]) -> None:
        self._clickhouse = clickhouse
        self._left = inserts
        self._done = done
        self._then = then

    def insert(self, table: str, rows: pa.Table, token: str) -> None:
        self._left -= table == "events"
        now = table == "events" and self._left == 0
        if now and not self._done:
            self._then()
        try:
            self._clickhouse.insert(table, rows, token)
        finally:  # a refusal that nobody hears is lost too
            if now and self._done:
                self._then()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clickhouse, name)


def _killed() -> None:
    raise Killed


def _lost() -> None:
    raise ClickHouseAway("the answer was lost")


@pytest.mark.parametrize("mended", [False, True], ids=["still refused", "mended meanwhile"])
@pytest.mark.parametrize("then", [_killed, _lost], ids=["killed", "answer lost"])
@pytest.mark.parametrize("inserts", [2, 3, 4, 7, 10])
def test_interrupted_at_any_block_each_row_is_there_once(
    bench: Any, inserts: int, then: Callable[[], None], mended: bool
) -> None:
    """Between any two blocks, whether ClickHouse takes the bad row afterwards or still refuses it."""
    vehicle = fill(bench, 123)
    with refusing(bench.clickhouse, POISON):

        def interrupt() -> None:
            if mended:
                bench.clickhouse.command("ALTER TABLE events DROP CONSTRAINT poison")
            then()

        flaky = Interrupts(bench.clickhouse, inserts, True, interrupt)
        with pytest.raises(Killed) if then is _killed else _nothing():
            bench.restart(flaky)
            bench.load_all()
        bench.restart()
        bench.load_all()
    assert whole(bench, vehicle) == all_but(0 if mended else 1)
    assert bench.count("raw_messages") == MESSAGES


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def test_when_everything_is_refused_load_gives_up_soon(bench: Any) -> None:
    """A constraint that was a mistake: few inserts, nothing is lost, the next segment is loaded, a retry brings all."""
    vehicle = bench.vehicle("v")
    counted = Interrupts(bench.clickhouse, 10_000, False, _killed)
    with refusing(bench.clickhouse, f"vehicle_id = '{vehicle}'"):
        fill(bench)
        bench.restart(counted)
        bench.load_all()
    tried = 10_000 - counted._left
    assert (bench.count("events"), bench.count("segments"), bench.count("raw_messages")) == (0, 1, MESSAGES)
    assert tried <= 2 * isolation.MAX_REFUSED + 2 * 10
    retry(bench)
    assert whole(bench, vehicle) == all_but(0)


def test_a_view_that_refuses_doubles_nothing(bench: Any) -> None:
    """The rows may be in their table already: cutting would double them, so the segment is parked as it is."""
    vehicle = bench.vehicle("v")
    with refusing(bench.clickhouse, f"vehicle_id = '{vehicle}'", "signal_minute"):
        fill(bench)
        bench.load_all()
        assert why(bench) == "refused"
    retry(bench)
    assert whole(bench, vehicle) == all_but(0)


@pytest.fixture
def own_database(owner: Owner) -> Iterator[ServerClickHouse]:
    """Tables that a test may change for good."""
    server = ServerClickHouse(owner.url, "fleetgate_narrowed", "default", WRITER)
    migrate(server, catalogue(), 7)
    yield server
    server.command("DROP DATABASE fleetgate_narrowed")
    server.close()


@pytest.mark.parametrize(
    ("narrowed", "code"),
    [("FixedString(9)", 131), ("Enum8('cfg-7f3a' = 1)", 691)],
    ids=["too long a text", "no member of an enumeration"],
)
def test_a_type_that_was_narrowed_costs_what_does_not_fit(
    tmp_path: Any, own_database: ServerClickHouse, narrowed: str, code: int
) -> None:
    """A column changed by hand: what it cannot hold is set aside with ClickHouse's number of the error."""
    own_database.command(f"ALTER TABLE events MODIFY COLUMN config {narrowed}")
    bench = Bench(tmp_path, narrowed, own_database)
    for number in range(50):
        config = "cfg-of-a-longer-name" if number == 31 else "cfg-7f3a"
        bench.spool.message(rows_body(sample(0, s1=1.0), config=config), sender=peer(bench.vehicle("v")))
    bench.spool.seal()
    bench.load_all()
    assert (bench.count("events"), bench.count("raw_messages")) == (49, 50)
    error = json.loads(parked(bench).with_suffix(".error.json").read_text())
    assert (error["why"], error["code"]) == ("refused in part", code)
    own_database.command("ALTER TABLE events MODIFY COLUMN config LowCardinality(String)")
    retry(bench)
    assert bench.count("events") == 50
