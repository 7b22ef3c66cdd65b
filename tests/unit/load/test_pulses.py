"""What the watch looks at: a row for each device and segment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.segments import RECEIVED_AT, SENT_AT, SpoolOnDisk, peer, rows_body, sample

from fleetgate.catalogue import catalogue
from fleetgate.load.columns import segment_rows
from fleetgate.load.unknown import UnknownNames


@pytest.fixture
def spool(tmp_path: Path) -> SpoolOnDisk:
    return SpoolOnDisk(tmp_path)


def pulses(spool: SpoolOnDisk) -> list[dict[str, Any]]:
    rows = segment_rows(spool.segment(), catalogue(), UnknownNames({}))
    return [row for part in rows.rows if part.table == "pulses" for row in part.rows.to_pylist()]


def test_a_pulse_says_how_much_a_device_said_and_its_last_values(spool: SpoolOnDisk) -> None:
    """Counts are of all its messages; values the last plausible of each signal in the last message."""
    spool.message(rows_body(sample(-9, s1=10.0), [0, "fault", {"made_up": 1.0}, {}]), flags=2)
    spool.message(rows_body(sample(0, s7=48.0)), sender=peer("other"))
    spool.message(
        rows_body(sample(-500, s1=20.0, s13=50.0), sample(-7, s1=9999.0, s3=1.0)), received_at=RECEIVED_AT + 9
    )
    row, other = pulses(spool)
    assert (row["vehicle_id"], row["outcome"], row["software"], row["config"]) == (
        "veh-0001",
        "accepted",
        "2026.44.1",
        "cfg-7f3a",
    )
    counts = ("messages", "late", "events", "faults", "unknown", "readings", "implausible", "first_seq", "last_seq")
    assert [row[name] for name in counts] == [2, 1, 4, 1, 1, 5, 1, 0, 2]
    assert dict(zip(row["signal_ids"], row["signal_values"], strict=True)) == {1: 20.0, 3: 1.0, 13: 50.0}
    assert row["delay_ms"] == RECEIVED_AT - SENT_AT
    assert (row["received_at"].timestamp() * 1000, row["event_time"].timestamp() * 1000) == (
        RECEIVED_AT + 9,
        SENT_AT - 7,
    )
    assert (other["vehicle_id"], other["signal_ids"], other["signal_values"]) == ("other", [7], [48.0])
    assert row["record_offset"] < other["record_offset"]


def test_another_label_or_outcome_begins_a_pulse(spool: SpoolOnDisk) -> None:
    """A vehicle that is updated or put into quarantine within a segment has two; of held messages no value is kept."""
    spool.message(rows_body(sample(0, s1=1.0), software="1"))
    spool.message(rows_body(sample(0, s1=2.0), software="2"))
    spool.message(rows_body(sample(0, s1=3.0), software="2"), outcome=2)
    found = [(row["software"], row["outcome"], row["messages"], row["signal_values"]) for row in pulses(spool)]
    assert found == [("1", "accepted", 1, [1.0]), ("2", "accepted", 1, [2.0]), ("2", "held", 1, [])]


def test_a_segment_without_messages_has_none(spool: SpoolOnDisk) -> None:
    """Transitions alone are nobody's pulse."""
    spool.transition()
    assert pulses(spool) == []


def test_messages_that_look_alike_and_others_give_the_same_pulses(spool: SpoolOnDisk) -> None:
    """Both roads of opening are read: each device has the values of its own last message."""
    for turn in range(3):
        for vehicle in range(40):
            sender, value = peer(f"veh-{vehicle:04d}"), float(vehicle + turn)
            events = [sample(-5, s16=0.0), sample(0, s16=value)] if vehicle % 4 else [sample(0, s16=value)]
            body = rows_body(*events, software=f"{turn}" * (vehicle % 4 + 1))
            spool.message(body, sender=sender)
    rows = pulses(spool)
    last = {row["vehicle_id"]: row["signal_values"] for row in rows}
    assert last == {f"veh-{vehicle:04d}": [float(vehicle + 2)] for vehicle in range(40)}
    assert sum(row["messages"] for row in rows) == 120
