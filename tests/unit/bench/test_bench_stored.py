"""An edge that answers and does not write is found: what is in the spool is compared with what was acknowledged."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from loadtest.bench.processes import BenchError
from loadtest.bench.stored import Spooled
from tests.spools import OpenSpool, SetClock, sender

ACCEPTED, HELD = 1, 2


@pytest.fixture
def spool(tmp_path: Path) -> OpenSpool:
    return OpenSpool(tmp_path / "spool", SetClock())


def write(spool: OpenSpool, seqs: list[int], device: int = 1, outcome: int = ACCEPTED) -> None:
    """A sealed segment with these numbers of a device."""
    for seq in seqs:
        raw = msgspec.msgpack.encode([1, 1, 1, seq, 0, 1, b"body", b"t" * 16])
        spool.writer.message(sender(device), spool.clock.ms, outcome, 0, raw)
    spool.writer.commit()
    spool.writer.seal()


def test_what_was_acknowledged_and_written_passes(spool: OpenSpool) -> None:
    """The same number of two devices is two messages."""
    write(spool, [0, 1, 2])
    write(spool, [0], device=2)
    Spooled(spool.directory).check(4)


def test_each_check_looks_at_what_came_since_the_last(spool: OpenSpool) -> None:
    """A round is compared with its own answers."""
    spooled = Spooled(spool.directory)
    write(spool, [0, 1])
    spooled.check(2)
    write(spool, [2])
    spooled.check(1)


@pytest.mark.parametrize("written", [[], [0, 1], [0, 1, 1], [0, 1, 2, 3]], ids=["none", "lost", "doubled", "more"])
def test_three_acknowledged_and_others_written_fails(spool: OpenSpool, written: list[int]) -> None:
    """None, too few, one twice, or one that nobody was told of."""
    if written:
        write(spool, written)
    with pytest.raises(BenchError, match="3 messages were acknowledged"):
        Spooled(spool.directory).check(3)


def test_a_held_message_is_not_an_accepted_one(spool: OpenSpool) -> None:
    """A benchmark whose devices went to quarantine measures something else."""
    write(spool, [0], outcome=HELD)
    with pytest.raises(BenchError, match="in the spool are 0"):
        Spooled(spool.directory).check(1)
