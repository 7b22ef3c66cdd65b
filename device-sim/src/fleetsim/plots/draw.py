"""Decides which fleets are looked at, and what is told of them: the figures beside what others measured."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from fleetsim.drive import Fleet
from fleetsim.gate import RunError
from fleetsim.plots import observe, published
from fleetsim.plots.observe import Day, Seconds, Trips
from fleetsim.plots.recorded import Recorded

# A working day and a Saturday; its morning; and hours of other seasons, so that every temperature is driven in.
FRIDAY, MORNING, RUSH_HOUR = "2026-01-09T00:00", "2026-01-09T06:30", "2026-01-09T16:00"
SEASONS = ("2026-01-20T14:00", "2026-04-14T12:00", "2026-07-21T14:00", "2026-10-13T12:00")


class Extent(NamedTuple):
    """How much is looked at: vehicles; hours of the days, of each season; minutes by the second."""

    vehicles: int = 1_000
    hours: float = 48
    season_hours: float = 3
    minutes: float = 15


def draw(directory: Path, recorded: Recorded | None, extent: Extent, seed: int) -> list[str]:
    """Write the four pictures; returns lines to tell. Raises RunError where matplotlib is not installed."""
    try:
        from fleetsim.plots import pictures
    except ImportError:
        raise RunError("plots need matplotlib: install the package's dependency group `plots`") from None
    directory.mkdir(parents=True, exist_ok=True)
    week = Fleet(extent.vehicles, observe.at(FRIDAY), seed)
    trips, day = observe.trips(week, extent.hours)
    morning = Fleet(extent.vehicles, observe.at(MORNING), seed)
    seconds = observe.seconds(morning, extent.minutes)
    rush = observe.seconds(Fleet(3 * extent.vehicles, observe.at(RUSH_HOUR), seed), 2 * extent.minutes, every=5)
    yard = observe.park(Fleet(10 * extent.vehicles, observe.at(FRIDAY), seed))
    seasons = [
        observe.trips(Fleet(extent.vehicles, observe.at(when), seed), extent.season_hours)[0] for when in SEASONS
    ]
    pictures.speeds(seconds, recorded, directory / "speeds.png")
    pictures.days(trips, day, week.kind, directory / "days.png")
    pictures.batteries(observe.joined([trips, *seasons]), yard, directory / "batteries.png")
    pictures.fleet(rush, yard, observe.at(FRIDAY), seed, directory / "fleet.png")
    return tell(trips, day, seconds, week.kind, recorded)


def tell(trips: Trips, day: Day, seconds: Seconds, kinds: list[str], recorded: Recorded | None) -> list[str]:
    """The figures as lines: what, simulated, measured by others."""
    cars = trips.of("car")
    km = trips.km[cars]
    mine = np.array([kind == "car" for kind in kinds])
    speed = seconds.speed[:, np.array(seconds.kind) == "car"]
    speed = speed[~np.isnan(speed)]
    lines = [
        _line("car trips: mean, km", km.mean(), published.TRIP_MEAN_KM),
        *(
            _line(f"car trips under {limit:g} km, percent", 100 * (km < limit).mean(), 100 * share)
            for limit, share in zip(published.TRIP_KM, published.TRIP_SHARE, strict=True)
        ),
        _line("a car drives, minutes a day", 1440 * day.driving[:, mine].mean(), published.MINUTES_A_DAY),
        _line("cars standing of the time driven, percent", 100 * (speed < 1).mean(), 100 * published.WLTC_STANDING),
        _line("cars' mean speed with stops, km/h", speed.mean(), published.WLTC_KMH),
    ]
    if recorded is not None:
        truck = seconds.acceleration[:, np.array(seconds.kind) == "truck"]
        truck = truck[~np.isnan(truck)]
        lines += [
            _line(
                f"trucks' acceleration, {percent} percent are below, m/s^2",
                float(np.percentile(truck, percent)),
                float(np.percentile(recorded.acceleration, percent)),
            )
            for percent in (5, 25, 75, 95)
        ]
    return lines


def _line(what: str, simulated: float, measured: float) -> str:
    return f"{what:48} {simulated:8.2f} {measured:8.2f}"
