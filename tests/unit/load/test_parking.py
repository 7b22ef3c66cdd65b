"""A parked segment stays, whatever else is parked under its number."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.registry import CollectorRegistry

from fleetgate.load.counts import Counts
from fleetgate.load.parking import Parking


def test_another_segment_of_the_same_number_takes_nobodys_place(tmp_path: Path) -> None:
    """A spool that was begun anew beside an old parked/ numbers from 1 too; once more of the same changes nothing."""
    parking = Parking(tmp_path / "parked", Counts(CollectorRegistry()))
    path = tmp_path / f"{1:020d}.seg"
    path.write_bytes(b"of before")
    parking.park(path, "refused", "no", None, 1)
    path.unlink()
    path.write_bytes(b"of now")
    for _ in range(2):
        parking.park(path, "refused", "no", None, 2)
    kept = {file.name: file.read_bytes() for file in (tmp_path / "parked").iterdir() if file.suffix != ".json"}
    assert kept == {path.name: b"of now", f"{path.name}.1.damaged": b"of before"}
