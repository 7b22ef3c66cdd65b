"""What counts as lost, doubled and unexpected: each way in which sent and stored can differ, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from loadtest import reconcile
from loadtest.journal import RECORD, Journal
from loadtest.messages import Messages

SPAN_MS = (1_000_000, 2_000_000)
STORED = pa.schema(
    [("device", pa.string()), ("epoch", pa.uint32()), ("seq", pa.uint64()), ("stored", pa.uint64()),
     ("events_stored", pa.uint64()), ("held", pa.uint8()), ("within", pa.uint8())]
)  # fmt: skip


class Answers:
    """A ClickHouse that answers from a list, by the part that is asked for: what it does with SQL is tried with a real
    one elsewhere. A row is (device, epoch, seq, rows, distinct events, held, received while the run went on)."""

    def __init__(self, *rows: tuple[str, int, int, int, int, int, int]) -> None:
        self._rows = rows

    def raw(self, _sql: str, _output: str, asked: dict[str, int]) -> bytes:
        mine = [row for row in self._rows if row[2] % asked["parts"] == asked["part"]]
        columns = [pa.array(column, field.type) for column, field in zip(zip(*mine, strict=True), STORED, strict=False)]
        table = pa.table(columns, schema=STORED) if mine else STORED.empty_table()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, STORED) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())


def sent(directory: Path, *messages: tuple[int, str | None]) -> Messages:
    """Messages of acme/car, epoch 3, with 4 events each: (seq, answer)."""
    with Journal(directory, "0") as journal:
        device = journal.device("acme", "car", "mqtt")
        for seq, answer in messages:
            journal.sent(device, 3, seq, 4, 0.0)
            if answer is not None:
                journal.answered(device, 3, seq, answer)
    return Messages(directory)


def wrong(messages: Messages, *rows: tuple[str, int, int, int, int, int, int]) -> dict[str, int]:
    """What is not 0 of the three counts."""
    answers: Any = Answers(*rows)
    counts = reconcile._look(messages, answers, SPAN_MS).counts
    return {name: counts[name] for name in ("lost", "duplicated", "unexpected") if counts[name]}


CASES: dict[str, tuple[str | None, tuple[tuple[str, int, int, int, int, int, int], ...], dict[str, int]]] = {
    "stored": ("accepted", (("acme/car", 3, 7, 4, 4, 0, 1),), {}),
    "held": ("accepted", (("acme/car", 3, 7, 4, 4, 1, 1),), {}),
    "not stored": ("accepted", (), {"lost": 4}),
    "in part": ("duplicate", (("acme/car", 3, 7, 3, 3, 0, 1),), {"lost": 1}),
    "twice": ("accepted", (("acme/car", 3, 7, 8, 4, 0, 1),), {"duplicated": 4}),
    "more than was sent": ("accepted", (("acme/car", 3, 7, 5, 5, 0, 1),), {"unexpected": 1}),
    "refused": ("bad_mac", (), {}),
    "refused and stored": ("bad_mac", (("acme/car", 3, 7, 4, 4, 0, 1),), {"unexpected": 4}),
    "unanswered": (None, (), {}),
    "unanswered and stored": (None, (("acme/car", 3, 7, 4, 4, 0, 1),), {}),
    "unanswered and stored twice": (None, (("acme/car", 3, 7, 8, 4, 0, 1),), {"duplicated": 4}),
    "unanswered and stored in part": (None, (("acme/car", 3, 7, 1, 1, 0, 1),), {"lost": 3}),
    "told to come later": ("rate_limited", (), {}),
    "another number": ("bad_mac", (("acme/car", 3, 9, 4, 4, 0, 1),), {"unexpected": 4}),
    "another epoch": ("bad_mac", (("acme/car", 2, 7, 4, 4, 0, 1),), {"unexpected": 4}),
    "another epoch, in another run": ("bad_mac", (("acme/car", 2, 7, 4, 4, 0, 0),), {}),
    "a stranger": ("bad_mac", (("acme/other", 3, 7, 4, 4, 0, 1),), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_each_difference_has_its_name(tmp_path: Path, name: str) -> None:
    """One message, and what ClickHouse has."""
    answer, rows, expected = CASES[name]
    assert wrong(sent(tmp_path, (7, answer)), *rows) == expected


def test_a_large_run_is_compared_in_parts_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message in one part, wherever it is stored or not."""
    messages = sent(tmp_path, *((seq, "accepted") for seq in range(20)))
    rows = [("acme/car", 3, seq, 4, 4, 0, 1) for seq in range(20) if seq != 13]
    assert wrong(messages, *rows) == {"lost": 4}
    monkeypatch.setattr(reconcile, "_AT_ONCE", 3)
    assert wrong(messages, *rows) == {"lost": 4}


def test_load_is_waited_for_while_rows_come_and_a_while_beyond(tmp_path: Path) -> None:
    """A backlog may take an hour; nothing at all for two looks is the end."""
    messages = sent(tmp_path, *((seq, "accepted") for seq in range(4)))
    slept = 0.0

    class Filling(Answers):
        """One message more at each look, but the last never."""

        def raw(self, _sql: str, _output: str, asked: dict[str, int]) -> bytes:
            rows = [("acme/car", 3, seq, 4, 4, 0, 1) for seq in range(min(int(slept), 3))]
            return Answers(*rows).raw(_sql, _output, asked)

    def sleep(seconds: float) -> None:
        nonlocal slept
        slept += seconds

    filling: Any = Filling()
    found = reconcile._settled(messages, filling, SPAN_MS, 2.0, sleep)
    assert found.counts["lost"] == 4
    assert slept == 5


def test_what_comes_behind_the_last_acknowledged_message_is_seen(tmp_path: Path) -> None:
    """Nothing is missing at the first look; the segment with the same rows again comes at the second one."""
    messages = sent(tmp_path, (0, "accepted"))
    looks = 0

    class Doubling(Answers):
        def raw(self, _sql: str, _output: str, asked: dict[str, int]) -> bytes:
            nonlocal looks
            looks += 1
            return Answers(("acme/car", 3, 0, 4 if looks == 1 else 8, 4, 0, 1)).raw(_sql, _output, asked)

    doubling: Any = Doubling()
    assert reconcile._settled(messages, doubling, SPAN_MS, 30.0, lambda _: None).counts["duplicated"] == 4
    assert looks == 2 + reconcile.CALM_SECONDS


def test_of_a_journal_that_was_cut_off_nothing_is_strange(tmp_path: Path) -> None:
    """Its device may have sent more than is known; what is known to be acknowledged must be there all the same."""
    sent(tmp_path, (0, "accepted"), (1, "accepted"))
    journal = tmp_path / "acks-0.bin"
    journal.write_bytes(journal.read_bytes()[: RECORD.size])
    assert wrong(Messages(tmp_path), ("acme/car", 3, 0, 4, 4, 0, 1), ("acme/car", 3, 1, 4, 4, 0, 1)) == {}
    assert wrong(Messages(tmp_path), ("acme/car", 3, 1, 4, 4, 0, 1)) == {"lost": 4}
