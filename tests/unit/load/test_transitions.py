"""Transitions of segments that wait for ClickHouse: those of this spool reach control, whatever lies among them."""

from __future__ import annotations

import threading
from pathlib import Path

from prometheus_client.registry import CollectorRegistry
from tests.segments import SpoolOnDisk
from tests.spools import ALERT

from fleetgate.load.counts import Counts
from fleetgate.load.transitions import Transitions
from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.format import TransitionRecord


def waiting(spool: SpoolOnDisk) -> list[str]:
    """The devices whose transitions control learns of while ClickHouse is away; looked at twice."""
    told: list[str] = []

    def apply(_spool: str, _segment: int, _offset: int, record: TransitionRecord) -> str:
        told.append(record.device_id)
        return "applied"

    transitions = Transitions(
        spool.directory, apply, lambda record: told.append(record.key), Counts(CollectorRegistry()), threading.Event()
    )
    transitions.hand_on_waiting()
    transitions.hand_on_waiting()
    return told


def fill(spool: SpoolOnDisk, *devices: str) -> list[Path]:
    paths = []
    for device in devices:
        spool.transition(device)
        paths.append(spool.seal())
    return paths


def test_each_is_handed_on_once(tmp_path: Path) -> None:
    """Those behind the cursor, in order."""
    spool = SpoolOnDisk(tmp_path / "spool")
    fill(spool, "loaded", "one", "two")
    write_cursor(spool.directory, Cursor(spool.identity.hex(), 1, "00"))
    assert waiting(spool) == ["one", "two"]


def test_an_alert_waits_for_no_clickhouse_either(tmp_path: Path) -> None:
    """Control takes it, so that a person sees it there."""
    spool = SpoolOnDisk(tmp_path / "spool")
    spool.writer.alert(ALERT)
    fill(spool, "one")
    assert waiting(spool) == ["one", ALERT.key]


def test_a_segment_of_another_spool_moves_nobody(tmp_path: Path) -> None:
    """Whoever can put a file there must not put a car into quarantine by it."""
    stranger, spool = SpoolOnDisk(tmp_path / "other", "other"), SpoolOnDisk(tmp_path / "spool")
    _, second = fill(spool, "one", "two")
    [theirs] = fill(stranger, "theirs")
    (second.parent / f"{3:020d}.seg").write_bytes(theirs.read_bytes())
    assert waiting(spool) == ["one", "two"]


def test_a_segment_that_cannot_be_read_holds_up_nobody(tmp_path: Path) -> None:
    """Load tells of it when its turn comes; those behind it do not wait. A directory stands for a lost sector."""
    spool = SpoolOnDisk(tmp_path / "spool")
    rotten, unreadable, _ = fill(spool, "one", "two", "three")
    rotten.write_bytes(b"rot")
    unreadable.unlink()
    unreadable.mkdir()
    assert waiting(spool) == ["three"]


def test_the_cursor_of_another_spool_hides_nothing(tmp_path: Path) -> None:
    """Numbers start again on a new disk."""
    spool = SpoolOnDisk(tmp_path / "spool")
    fill(spool, "one")
    write_cursor(spool.directory, Cursor("ab" * 16, 9, "00"))
    assert waiting(spool) == ["one"]
