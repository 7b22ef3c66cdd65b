"""The journal of a generator's process, and what is read from it."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
from loadtest.hostile import KINDS
from loadtest.journal import RECORD, Journal
from loadtest.messages import SILENT, Messages, late_ms, latency_ms


class Clock:
    """Stands still but for what a test adds."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def test_latency_counts_from_when_a_message_was_due(tmp_path: Path) -> None:
    """A generator that sends 2 s late, and gets the answer 10 ms after that, measured 2,010 ms and not 10."""
    clock = Clock()
    with Journal(tmp_path, "0", clock) as journal:
        device = journal.device("acme", "car-1", "mqtt")
        journal.sent(device, 1, 0, 5, due_s=998.0)
        clock.now_s += 0.010
        journal.answered(device, 1, 0, "accepted")
    [found] = Messages(tmp_path).acknowledged[:1]
    assert latency_ms(found, 0.0) == pytest.approx(2_010)
    assert late_ms(found) == pytest.approx(2_000)


def test_what_is_sent_again_keeps_its_first_times(tmp_path: Path) -> None:
    """An answer that says "later" is none, and a repetition does not begin the wait anew."""
    clock = Clock()
    with Journal(tmp_path, "0", clock) as journal:
        device = journal.device("acme", "car-1", "mqtt")
        for answer in ("later", "rate_limited", "duplicate"):
            journal.sent(device, 1, 0, 5, due_s=clock.now_s)
            clock.now_s += 1
            journal.answered(device, 1, 0, answer)
    messages = Messages(tmp_path)
    assert latency_ms(messages.acknowledged, 0.0).tolist() == pytest.approx([3_000])
    assert messages.answers(honest=True) == {"later": 1, "rate_limited": 1, "duplicate": 1}
    assert messages.refused() == {}
    assert messages.fates().to_pylist() == [{"device": "acme/car-1", "epoch": 1, "seq": 0, "events": 5, "fate": 2}]


def test_the_fate_of_a_message_is_the_best_of_its_answers(tmp_path: Path) -> None:
    """Stored stays stored whatever its repetition is told; without an answer nobody knows."""
    with Journal(tmp_path, "0") as journal:
        device = journal.device("acme", "car-1", "mqtt")
        for seq, answers in enumerate((["accepted", "equivocation"], ["bad_mac"], ["later"], [])):
            for answer in answers:
                journal.sent(device, 1, seq, 1, 0.0)
                journal.answered(device, 1, seq, answer)
            if not answers:
                journal.sent(device, 1, seq, 1, 0.0)
    messages = Messages(tmp_path)
    assert {row["seq"]: row["fate"] for row in messages.fates().to_pylist()} == {0: 2, 1: 1, 2: 0, 3: 0}
    assert messages.answers(honest=True)["unanswered"] == 2
    assert messages.refused() == {"equivocation": 1, "bad_mac": 1}


def test_learning_the_epoch_is_no_false_refusal(tmp_path: Path) -> None:
    """The same events go out again under another number."""
    with Journal(tmp_path, "0") as journal:
        device = journal.device("acme", "car-1", "https")
        for epoch, label in ((1, "stale_epoch"), (7, "accepted")):
            journal.sent(device, epoch, 0, 1, 0.0)
            journal.answered(device, epoch, 0, label)
    assert Messages(tmp_path).refused() == {}


def test_two_processes_with_different_labels_are_read_together(tmp_path: Path) -> None:
    """Devices and labels have numbers of their own in each journal."""
    for name, labels in (("0", ("accepted", "bad_mac")), ("1", ("bad_mac", "accepted"))):
        with Journal(tmp_path, name) as journal:
            journal.device("acme", f"idle-{name}", "mqtt")
            device = journal.device("acme", f"car-{name}", "mqtt")
            for seq, label in enumerate(labels):
                journal.sent(device, 1, seq, 1, 0.0)
                journal.answered(device, 1, seq, label)
    rows = {(row["device"], row["seq"]): row["fate"] for row in Messages(tmp_path).fates().to_pylist()}
    assert rows == {("acme/car-0", 0): 2, ("acme/car-0", 1): 1, ("acme/car-1", 0): 1, ("acme/car-1", 1): 2}


def test_what_is_hostile_counts_apart(tmp_path: Path) -> None:
    """An attacker's refusals are what the test wants; its messages are no throughput."""
    with Journal(tmp_path, "0") as journal:
        for device in (journal.device("acme", "car", "mqtt"), journal.device("acme", "bad", "attack", hostile=True)):
            for seq, label in enumerate(("accepted", "bad_mac")):
                journal.sent(device, 1, seq, 1, 0.0)
                journal.answered(device, 1, seq, label)
    messages = Messages(tmp_path)
    assert len(messages.acknowledged) == 1
    assert messages.refused() == {"bad_mac": 1}
    assert messages.answers(honest=False) == {"accepted": 1, "bad_mac": 1}
    assert {kind: len(found) for kind, found in messages.kinds().items()} == {"mqtt": 1}


def test_of_a_journal_that_nobody_closed_what_is_there_is_read(tmp_path: Path) -> None:
    """Killed before its end, when it had not said that this was all; or cut in the middle of a record."""
    for name in ("killed", "cut"):
        with Journal(tmp_path, name) as journal:
            device = journal.device("acme", name, "mqtt")
            for seq in range(3):
                journal.sent(device, 1, seq, 1, 0.0)
                journal.answered(device, 1, seq, "accepted")
    killed, cut = tmp_path / "acks-killed.jsonl", tmp_path / "acks-cut.bin"
    killed.write_text(killed.read_text().rpartition('{"records"')[0] + '{"dev')
    cut.write_bytes(cut.read_bytes()[: 2 * RECORD.size + 7])
    messages = Messages(tmp_path)
    assert messages.incomplete == ["acks-cut.bin", "acks-killed.bin"]
    assert messages.unsure == {"acme/cut", "acme/killed"}
    assert len(messages.acknowledged) == 5


def _fill(journal: Journal, device: int) -> None:
    for seq in range(1_000):
        journal.sent(device, 1, seq, 1, 0.0)
        journal.answered(device, 1, seq, "accepted")


def test_a_journal_whose_disk_is_full_ends_the_process(tmp_path: Path) -> None:
    """Or the rest of it would look whole: nothing that comes later says that this was all."""
    journal = Journal(tmp_path, "0")
    device = journal.device("acme", "car-1", "mqtt")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
        with pytest.raises(SystemExit, match="nobody could judge this run"):
            _fill(journal, device)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    journal.close()
    assert Messages(tmp_path).incomplete == ["acks-0.bin"]


def test_what_has_no_answer_counts_with_its_age(tmp_path: Path) -> None:
    """A gate that is gone for the second half: without them it would look as fast as before."""
    clock = Clock()
    with Journal(tmp_path, "0", clock) as journal:
        device = journal.device("acme", "car-1", "mqtt")
        journal.sent(device, 1, 0, 5, due_s=999.99)
        journal.answered(device, 1, 0, "accepted")
        journal.sent(device, 1, 1, 5, due_s=1_000.0)
        journal.never_sent(device, 5, due_s=1_002.0)
    messages = Messages(tmp_path)
    assert sorted(latency_ms(messages.waited, 1_010.0).tolist()) == pytest.approx([10, 8_000, 10_000])
    assert messages.due["events"].sum() == 15
    assert len(messages.among(messages.due, SILENT)) == 2
    assert [row["seq"] for row in messages.fates().to_pylist()] == [0, 1]  # what never left has no number


def test_an_attack_that_is_taken_for_a_good_message_is_counted(tmp_path: Path) -> None:
    """By kind: what a flood sends is valid, and so is what an attacker needs before a replay."""
    with Journal(tmp_path, "0") as journal:
        said = {"forged_mac": ("bad_mac", "accepted"), "flood": ("accepted",), "before replay": ("accepted",)}
        for kind, answers in said.items():
            device = journal.device("acme", kind, kind, hostile=True)
            for seq, answer in enumerate(answers):
                journal.sent(device, 1, seq, 1, 0.0)
                journal.answered(device, 1, seq, answer)
    assert Messages(tmp_path).attacks({kind.name: kind.caught for kind in KINDS}) == (3, 1)


def test_a_second_process_of_one_name_is_refused(tmp_path: Path) -> None:
    """It would write over what the first one knows."""
    Journal(tmp_path, "0").close()
    with pytest.raises(FileExistsError):
        Journal(tmp_path, "0")
