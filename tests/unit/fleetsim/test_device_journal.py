"""The device's disk: what was signed survives kill -9 and goes out as the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.fleetsim.bench import Bench

from fleetsim.answers import STORED
from fleetsim.journal import Journal, JournalError

# Signs and sends messages until it is killed; prints each only after it could have been sent.
_DEVICE = """
import sys
from pathlib import Path
from tests.unit.fleetsim.bench import Bench

bench = Bench(Path(sys.argv[1]))
bench.connect(gate_epoch=4)
while True:
    bench.submit(3)
    for entry in bench.take():
        print(*entry.key, entry.raw.hex(), flush=True)
"""


def test_kill_9_loses_no_signed_message(tmp_path: Path) -> None:
    """After kill -9 the device sends every message it had sent before, the same bytes, and opens a new epoch."""
    path = tmp_path / "journal.db"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    device = subprocess.Popen(
        [sys.executable, "-c", _DEVICE, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert device.stdout is not None
    sent = [device.stdout.readline().split() for _ in range(40)]
    device.send_signal(signal.SIGKILL)
    sent += [line.split() for line in device.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
    device.stdout.close()
    device.wait(10)

    bench = Bench(path)
    bench.connect()
    again = {(str(e.epoch), str(e.seq)): e.raw.hex() for e in bench.core.outbox.values()}
    assert (bench.core.epoch, [again.get((epoch, seq)) for epoch, seq, _ in sent]) == (6, [raw for *_, raw in sent])


def test_recovered_messages_go_out_before_new_ones(bench: Bench) -> None:
    """The order of sending is (epoch, seq) across restarts."""
    bench.connect()
    bench.submit(2)
    bench.journal.close()
    bench.start()
    bench.connect()
    bench.submit(1)
    assert [entry.key for entry in bench.take()] == [(1, 0), (1, 1), (2, 0)]


def test_an_answered_message_does_not_come_back(bench: Bench) -> None:
    """What was acknowledged is forgotten with the next commit."""
    entry = bench.send_one()
    bench.core.answered(entry.key, STORED)
    bench.journal.close()
    bench.start()
    assert bench.core.outbox == {}


def test_devices_in_one_file_are_apart(tmp_path: Path) -> None:
    """Two devices share a file and nothing else."""
    journal = Journal(tmp_path / "journal.db")
    journal.open_epoch("acme/a", 3)
    journal.keep("acme/b", 1, 0, b"b")
    journal.commit()
    assert (journal.load("acme/a"), journal.load("acme/b")) == ((3, []), (0, [(1, 0, b"b")]))
    journal.close()


def test_a_json_device_recovers_its_bytes(tmp_path: Path) -> None:
    """An HTTPS device that writes JSON envelopes sends the same JSON again."""
    bench = Bench(tmp_path / "journal.db", form="json")
    raw = bench.send_one().raw
    bench.journal.close()
    bench.start()
    bench.connect()
    assert [entry.raw for entry in bench.take()] == [raw]


def test_a_journal_that_cannot_be_opened_says_which(tmp_path: Path) -> None:
    """The error names the file and what to do."""
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(JournalError, match=r"journal\.db: .*--state"):
        Journal(path)
