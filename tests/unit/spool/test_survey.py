"""What `spool ls` shows of a segment, and how far behind it says load is."""

from __future__ import annotations

from pathlib import Path

from tests.segments import RECEIVED_AT, SpoolOnDisk, peer, rows_body, sample
from tests.spools import rejection

from fleetgate.durable import replace_durably
from fleetgate.spool.cursor import Cursor, write_cursor
from fleetgate.spool.survey import survey

NOW = RECEIVED_AT + 60_000


def fill(spool: SpoolOnDisk) -> None:
    spool.message(rows_body(sample(0, s1=1.0)), sender=peer("one"))
    spool.message(rows_body(sample(0, s1=1.0)), sender=peer("two"), received_at=RECEIVED_AT + 5)
    spool.writer.rejection(spool.sender(peer("one")), rejection("bad_mac", 1, RECEIVED_AT, RECEIVED_AT, []))
    spool.transition()


def test_each_segment_is_listed_with_its_records(tmp_path: Path) -> None:
    """Sealed ones by their footer, the live one by its records, alike."""
    spool = SpoolOnDisk(tmp_path / "spool")
    fill(spool)
    spool.seal()
    fill(spool)
    spool.writer.commit()
    rows = survey(spool.directory, NOW).segments
    counts = [(row.segment, row.state, row.messages, row.rejections, row.transitions, row.peers) for row in rows]
    assert counts == [(1, "sealed", 2, 1, 1, 2), (2, "live", 2, 1, 1, 2)]
    assert [(row.oldest_at_ms, row.lag_ms, row.note) for row in rows] == [(RECEIVED_AT, 60_000, "")] * 2


def test_the_summary_says_what_waits_for_load(tmp_path: Path) -> None:
    """Behind the cursor there is no lag; parked segments are counted apart."""
    spool = SpoolOnDisk(tmp_path / "spool")
    for _ in range(3):
        fill(spool)
        path = spool.seal()
    write_cursor(spool.directory, Cursor(spool.identity.hex(), 2, "00"))
    parked = spool.directory / "parked"
    parked.mkdir()
    replace_durably(parked / f"{1:020d}.seg", path.with_name(f"{1:020d}.seg").read_bytes())
    reason = b'{"why":"refused","error":"no such value","code":469,"parked_at_ms":1}'
    replace_durably(parked / f"{1:020d}.error.json", reason)
    found = survey(spool.directory, NOW)
    assert [(row.segment, row.state, row.loaded) for row in found.segments] == [
        (1, "parked", "no"),
        (1, "sealed", "no"),
        (2, "sealed", "yes"),
        (3, "sealed", "no"),
    ]
    assert found.segments[0].note == "refused (ClickHouse error 469): no such value"
    summary = found.summary
    assert (summary.segments, summary.unloaded, summary.unloaded_bytes) == (3, 1, path.stat().st_size)
    assert (summary.oldest_unloaded_age_ms, summary.parked, summary.cursor) == (60_000, 1, 2)


def test_damage_does_not_hide_a_segment(tmp_path: Path) -> None:
    """Without a footer it is read whole; without a header too it is listed as what cannot be read."""
    spool = SpoolOnDisk(tmp_path / "spool")
    fill(spool)
    path = spool.seal()
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"\0")
    [row] = survey(spool.directory, NOW).segments
    assert (row.messages, row.rejections, row.transitions, row.peers) == (2, 1, 1, 2)
    path.write_bytes(bytes(100))
    [row] = survey(spool.directory, NOW).segments
    assert (row.messages, row.bytes, row.note.startswith("cannot be read")) == (None, 100, True)


def test_a_cursor_of_another_spool_is_told(tmp_path: Path) -> None:
    """All segments count as waiting, and it says why."""
    spool = SpoolOnDisk(tmp_path / "spool")
    fill(spool)
    spool.seal()
    write_cursor(spool.directory, Cursor("ff" * 16, 9, "00"))
    found = survey(spool.directory, NOW)
    assert (found.segments[0].loaded, "another spool" in found.summary.trouble) == ("no", True)


def test_a_file_under_another_name_is_told(tmp_path: Path) -> None:
    """Its counts are those of another segment."""
    spool = SpoolOnDisk(tmp_path / "spool")
    paths = []
    for _ in range(2):
        fill(spool)
        paths.append(spool.seal())
    paths[1].write_bytes(paths[0].read_bytes())
    notes = [row.note for row in survey(spool.directory, NOW).segments]
    assert (notes[0], "it is segment 1" in notes[1]) == ("", True)
