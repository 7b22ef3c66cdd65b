"""The book of a load test: one request for each message, timed from when it was due; and devices that nobody shares."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from loadtest.book import Book, Due
from loadtest.hostile import KINDS, Arms, Kind
from loadtest.journal import NEVER_SENT, UNANSWERED, Journal
from loadtest.messages import Messages
from loadtest.pool import Memory, Pool, PoolError

from fleetsim import identities
from fleetsim.answers import STORED, from_item, from_puback
from fleetsim.bundle import Bundle
from fleetsim.core import DeviceCore
from fleetsim.encode import Event
from fleetsim.identities import ARCHIVE
from fleetsim.outbox import Draft

BUNDLE = Bundle("acme", "car-1-tcu", "car-1", 1, bytes(32), Path())
DRAFT = Draft("2026.44.1", "cfg", 1, (Event(1_000_000, "sample", {1: 50.0}, {}),))


class Bench:
    """A device core whose book is looked at; the clock is the test's."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 1_000.0
        self.told: list[tuple[str, float, str | None]] = []
        self.journal = Journal(directory, "0", lambda: self.now_s)
        device = self.journal.device(BUNDLE.tenant, BUNDLE.device_id, "mqtt-telemetry")
        self.book = Book(self.journal, device, lambda *said: self.told.append(said), lambda: self.now_s)
        self.core = DeviceCore(BUNDLE, Memory(), self.book, lambda: self.now_s * 1000, random.Random(1))
        self.core.told_time(self.now_s * 1000)
        self.core.connected()

    def submit(self, due_s: float) -> None:
        self.book.next_due = Due("telemetry", due_s)
        assert self.core.submit(DRAFT)

    def send(self) -> tuple[int, int]:
        entry = self.core.take()
        assert entry is not None
        return entry.key


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    with made.journal:
        yield made


def test_a_response_time_runs_from_when_the_message_was_due(bench: Bench) -> None:
    """Not from when it was sent, which here is three seconds later."""
    bench.submit(997.0)
    key = bench.send()
    bench.now_s += 0.5
    bench.core.answered(key, STORED)
    assert bench.told == [("telemetry", 3_500.0, None)]


def test_a_repetition_keeps_the_first_time_and_may_be_a_duplicate(bench: Bench) -> None:
    """The connection ended before the answer; the same bytes went out again."""
    bench.submit(1_000.0)
    bench.send()
    bench.now_s += 5
    bench.core.disconnected()
    bench.core.connected()
    key = bench.send()
    bench.now_s += 1
    bench.core.answered(key, from_puback(0x00, "duplicate"))
    assert bench.told == [("telemetry", 6_000.0, None)]


def test_a_second_number_does_not_make_a_second_request(bench: Bench) -> None:
    """Told that its epoch is stale, the device signs the events again: still one message, due when it was due."""
    bench.submit(1_000.0)
    bench.submit(1_000.5)
    first, second = bench.send(), bench.send()
    for key in (first, second):
        bench.core.answered(key, from_item({"status": "rejected", "reason": "stale_epoch", "current_epoch": 7}))
    assert bench.told == []
    bench.now_s += 2
    for _ in range(2):
        key = bench.send()
        assert key[0] == 8
        bench.core.answered(key, STORED)
    assert bench.told == [("telemetry", 2_000.0, None), ("telemetry", 1_500.0, None)]


def test_a_refusal_is_a_failure_under_its_reason(bench: Bench) -> None:
    bench.submit(1_000.0)
    bench.core.answered(bench.send(), from_puback(0x99, "malformed_body"))
    assert bench.told == [("telemetry", 0.0, "malformed_body")]


def test_what_has_no_answer_at_the_end_counts_with_the_time_it_waited(bench: Bench, tmp_path: Path) -> None:
    """One is in flight, one was never signed: both are slow failures, and none is left out."""
    bench.submit(1_000.0)
    bench.send()
    bench.now_s += 4
    bench.book.give_up([(Due("telemetry", 1_003.0), 1)])
    assert bench.told == [("telemetry", 4_000.0, UNANSWERED), ("telemetry", 1_000.0, NEVER_SENT)]
    bench.journal.close()
    assert Messages(tmp_path).answers(honest=True) == {UNANSWERED: 1, NEVER_SENT: 1}


def test_no_user_of_another_process_is_the_same_device(tmp_path: Path) -> None:
    """Seven devices, three processes: each device once; a process that is one too many is told why."""
    numbers = []
    with sqlite3.connect(tmp_path / ARCHIVE) as db:
        db.executescript(identities._SCHEMA)
        db.executemany("INSERT INTO device (number) VALUES (?)", [(number,) for number in range(1, 8)])
    db.close()
    for index in range(3):
        pool = Pool(tmp_path, index, 3)
        pool.check(2)
        numbers += list(pool._free)
    assert sorted(numbers) == list(range(7))
    with pytest.raises(PoolError, match="too few for its 4 users"):
        Pool(tmp_path, 0, 3).check(4)
    with pytest.raises(PoolError, match="--expect-workers"):
        Pool(tmp_path, 3, 3)


@pytest.mark.parametrize("kind", KINDS, ids=[kind.name for kind in KINDS])
def test_an_attacker_repeats_a_number_only_where_that_is_its_attack(kind: Kind) -> None:
    """Otherwise its messages could be mistaken for each other when they are counted."""
    arms = Arms(BUNDLE, random.Random(1), lambda: 1_000.0)
    arms.begin(4)
    honest = arms.honest()
    shots = [kind.make(arms) for _ in range(40)]
    assert {shot.epoch for shot in shots} == {5}
    numbers = {shot.seq for shot in shots}
    assert numbers == {honest.seq} if kind.needs_honest else len(numbers) == 40
