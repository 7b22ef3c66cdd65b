"""The pictures of the simulated fleet, and what it is held against."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fleetsim.cli import app
from fleetsim.drive import Fleet
from fleetsim.gate import RunError
from fleetsim.plots import draw, observe, published, recorded

DRIVE = Path(__file__).parents[4] / "shared" / "data" / "dt-cargo-track-10.csv"
PAGE = Path(__file__).parents[3] / "docs" / "explanation" / "simulated-fleet.md"
SMALL = draw.Extent(vehicles=200, hours=2, season_hours=0.1, minutes=0.5)
PNG = b"\x89PNG"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Half a minute at ten rows a second: standing, then away at one metre a second squared."""
    rows = [f"{1_600_000_000 + i / 10},{max(0.0, i / 10 - 10)},0.6" for i in range(300)]
    path = tmp_path / "drive.csv"
    path.write_text("epoch,speed,hdop\n" + "\n".join(rows) + "\n")
    return path


def test_the_command_draws_four_pictures_and_tells_figures(tmp_path: Path, recording: Path) -> None:
    """Each figure beside what others measured."""
    lines = draw.draw(tmp_path / "plots", recorded.read(recording), SMALL, seed=1)
    drawn = {path.name: path.read_bytes()[:4] for path in (tmp_path / "plots").iterdir()}
    assert drawn == dict.fromkeys(("speeds.png", "days.png", "batteries.png", "fleet.png"), PNG)
    assert any("car trips under 6 km" in line and line.endswith("50.00") for line in lines)


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator itself does without it."""
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.delitem(sys.modules, "fleetsim.plots.pictures", raising=False)
    monkeypatch.delattr("fleetsim.plots.pictures", raising=False)
    with pytest.raises(RunError, match="dependency group `plots`"):
        draw.draw(tmp_path, None, SMALL, seed=1)


def test_a_recording_is_read_by_the_second(recording: Path) -> None:
    """Means of seconds, and what changes between them."""
    drive = recorded.read(recording)
    assert len(drive.speed) == 30
    assert drive.acceleration[-5:] == pytest.approx([1.0] * 5)
    assert drive.hdop == pytest.approx(0.6)


@pytest.mark.parametrize(("text", "reason"), [
    ("epoch,speed\n1,2\n2,3\n", "columns epoch, speed, hdop"),
    ("epoch,speed,hdop\n1,2,fast\n2,3,1\n", "columns epoch, speed, hdop"),
    ("epoch,speed,hdop\n1,2,1\n", "fewer than two rows"),
])  # fmt: skip
def test_what_is_no_recording_is_said_in_a_line(tmp_path: Path, text: str, reason: str) -> None:
    """Before anything is simulated."""
    path = tmp_path / "drive.csv"
    path.write_text(text)
    with pytest.raises(RunError, match=reason):
        recorded.read(path)


def test_a_recording_that_is_not_there_is_said(tmp_path: Path) -> None:
    """With the path."""
    result = CliRunner().invoke(app, ["plots", str(tmp_path), "--recording", str(tmp_path / "none.csv")])
    assert isinstance(result.exception, RunError)
    assert "none.csv: No such file" in str(result.exception)


def test_car_trips_are_as_long_as_surveys_say() -> None:
    """Mobilität in Deutschland: half under 6 km, one in twenty under 1 km, one in ten over 30 km."""
    trips, _ = observe.trips(Fleet(500, observe.at("2026-01-09T14:00"), seed=4), hours=3)
    km = trips.km[trips.of("car")]
    shares = [(km < limit).mean() for limit in published.TRIP_KM]
    assert len(km) > 150
    assert shares == pytest.approx(published.TRIP_SHARE, abs=0.09)


@pytest.mark.skipif(not DRIVE.exists(), reason="the recorded drive is not on this machine (it is not in the project)")
def test_trucks_accelerate_as_the_recorded_one_does() -> None:
    """Ninety of a hundred seconds lie between about the same accelerations, and the fix is as good."""
    truth = recorded.read(DRIVE)
    seconds = observe.seconds(Fleet(1_200, observe.at("2026-01-09T07:30"), seed=4), minutes=2)
    trucks = np.array([kind == "truck" for kind in seconds.kind])
    simulated, hdop = seconds.acceleration[:, trucks], seconds.hdop[:, trucks]
    ours, theirs = (np.nanpercentile(values, (5, 25, 50, 75, 95)) for values in (simulated, truth.acceleration))
    assert ours == pytest.approx(theirs, abs=0.35)
    assert np.nanmedian(hdop) == pytest.approx(np.median(truth.hdop), abs=0.1)


def test_the_page_shows_the_pictures_that_there_are() -> None:
    """docs/explanation/simulated-fleet.md: every picture of the command, and no other."""
    page = PAGE.read_text()
    shown = set(re.findall(r"!\[[^\]]+\]\(simulated-fleet/([a-z]+\.png)\)", page))
    kept = {path.name for path in PAGE.with_suffix("").iterdir()}
    assert shown == kept == {"speeds.png", "days.png", "batteries.png", "fleet.png"}
    assert all((PAGE.with_suffix("") / name).read_bytes()[:4] == PNG for name in kept)
