"""Decides how the comparison is drawn: four pictures, with what others measured in the same colours everywhere."""

from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fleetsim.drive.kinds import Array, Flags
from fleetsim.drive.regions import DAY_MS
from fleetsim.drive.releases import EVERY_MS, Releases, name
from fleetsim.plots import published
from fleetsim.plots.observe import Day, Park, Seconds, Trips
from fleetsim.plots.recorded import Recorded

COLOURS = {"car": "#1f77b4", "van": "#2ca02c", "truck": "#d98200"}
OTHERS, RECORDED = "#222222", "#b00020"
Corner = Literal["upper left", "upper right", "lower left", "lower right"]
_INCHES, _DPI = (10.0, 4.2), 90


def speeds(seconds: Seconds, recorded: Recorded | None, file: Path) -> None:
    """How fast, how hard on the pedals, how good the fix: each vehicle kind, and the recorded drive."""
    figure, (left, middle, right) = _figure(3)
    for kind, colour in COLOURS.items():
        chosen = np.array([each == kind for each in seconds.kind])
        _cumulative(left, seconds.speed[:, chosen], kind, colour)
        _density(middle, seconds.acceleration[:, chosen], kind, colour)
        _cumulative(right, seconds.hdop[:, chosen], kind, colour)
    if recorded is not None:
        for axes, values in ((left, recorded.speed), (right, recorded.hdop)):
            _cumulative(axes, values, "recorded truck", RECORDED, width=2.2)
        _density(middle, recorded.acceleration, "recorded truck", RECORDED)
    left.plot([0], [published.WLTC_STANDING], "o", color=OTHERS, label="WLTC: standing")
    left.axvline(published.WLTC_TOP_KMH, color=OTHERS, linestyle=":", linewidth=1, label="WLTC: fastest")
    left.set(xlabel="speed, km/h", ylabel="share of the seconds driven", xlim=(-3, 145))
    middle.set(xlabel="acceleration, m/s²", ylabel="share of seconds for each m/s²", yscale="log", xlim=(-3.2, 3.2))
    right.set(xlabel="HDOP", ylabel="share of the seconds driven", xlim=(0.3, 1.6))
    _finish(figure, {left: "lower right", middle: "upper right"}, file)


def days(trips: Trips, day: Day, kinds: list[str], file: Path) -> None:
    """How far trips go, and who is on the road at which hour."""
    figure, (left, middle, right) = _figure(3)
    for kind, colour in COLOURS.items():
        _cumulative(left, trips.km[trips.of(kind)], kind, colour)
        mine = np.array([each == kind for each in kinds])
        hours, driving = np.floor(day.week_hour[:, mine]), day.driving[:, mine]
        for weekend, style in ((False, "-"), (True, "--")):
            chosen = (hours >= 5 * 24) == weekend
            seen = np.unique(hours[chosen] % 24)
            shares = [100 * driving[chosen & (hours % 24 == hour)].mean() for hour in seen]
            middle.plot(seen + 0.5, shares, style, color=colour)
    left.plot(published.TRIP_KM, published.TRIP_SHARE, "o", color=OTHERS, label="cars, MiD 2002")
    left.set(xscale="log", xlim=(0.4, 300), xlabel="trip, km", ylabel="share of trips that are shorter")
    middle.set(
        xlabel="local hour (broken: Saturday)",
        ylabel="on the road, percent of each kind",
        xlim=(0, 24),
        xticks=range(0, 25, 4),
    )
    right.plot(day.hours, 100 * day.awake.mean(axis=1), color="#777777", label="awake")
    right.plot(day.hours, 100 * day.driving.mean(axis=1), color="#1f77b4", label="driving")
    right.set(xlabel="UTC, hours since Friday 0:00", ylabel="percent of the fleet", ylim=(0, None))
    _finish(figure, {left: "upper left", right: "upper right"}, file)


def batteries(trips: Trips, park: Park, file: Path) -> None:
    """Health by age, and range by the temperature outside."""
    figure, (left, right) = _figure(2)
    left.scatter(
        park.years[:1500], park.health[:1500], s=3, alpha=0.35, color="#1f77b4", label="simulated", linewidths=0
    )
    years = np.linspace(0, 9, 10)
    for loss, style in ((published.FADE_PERCENT_A_YEAR, "-"), (published.FADE_LOW_PERCENT_A_YEAR, "--")):
        left.plot(years, 100 - loss * years, style, color=OTHERS, label=f"Geotab: {loss} percent a year")
    left.plot([8], [published.HEALTH_AFTER_8_YEARS], "o", color=OTHERS, label="Geotab: after 8 years")
    left.set(xlabel="age, years", ylabel="state of health, percent", xlim=(0, 9.6), ylim=(60, 101))
    air, share = range_by_air(trips)
    right.plot(air, 100 * share, "-", color="#1f77b4", label="simulated cars, trips over 5 km")
    right.plot(published.RANGE_AT, 100 * np.array(published.RANGE_SHARE), "o", color=OTHERS, label="Geotab")
    right.set(xlabel="outside, °C", ylabel="range, percent of that at 10 °C", ylim=(30, 130))
    _finish(figure, {left: "lower left", right: "lower right"}, file)


def fleet(seconds: Seconds, park: Park, at_ms: float, seed: int, file: Path) -> None:
    """The ways of half an hour in one city, faults by age, and releases that roll out."""
    figure, (left, middle, right) = _figure(3)
    near = np.nanmin(np.where(np.isnan(seconds.latitude), 90, np.abs(seconds.latitude - 48.14)), axis=0) < 0.15
    points = left.scatter(
        seconds.longitude[:, near], seconds.latitude[:, near], c=seconds.speed[:, near], s=1.2, linewidths=0
    )
    figure.colorbar(points, ax=left, label="km/h", shrink=0.5, location="bottom")
    left.set(xlabel="longitude", ylabel="latitude", xlim=(11.35, 11.8), ylim=(48.0, 48.28), aspect=1.5)
    edges = np.arange(0, 10)
    middle.bar(edges[:-1] + 0.5, [100 * _share(park.broken, park.years, low) for low in edges[:-1]], width=0.8)
    middle.set(xlabel="age, years", ylabel="show a trouble code, percent")
    days_since, shares = rollout(len(park.years), at_ms, seed)
    for release, values in shares.items():
        if values.max() > 0.6:
            (line,) = right.plot(days_since, 100 * values)
            right.text(days_since[values.argmax()], 101, release, color=line.get_color(), fontsize=7)
    right.set(xlabel="days", ylabel="percent of the fleet that runs it", ylim=(0, 107))
    _finish(figure, {}, file)


def range_by_air(trips: Trips) -> tuple[Array, Array]:
    """Middle of each five degrees, and how far cars get on a percent of charge, as a share of that at 10 degrees."""
    long = trips.of("car") & (trips.km > 5) & (trips.charge > 0)
    bins = np.round(trips.air[long] / 5) * 5
    found = [(at, trips.km[long][bins == at].sum() / trips.charge[long][bins == at].sum())
             for at in np.unique(bins) if (bins == at).sum() >= 20]  # fmt: skip
    if not found:
        return np.empty(0), np.empty(0)
    air, km = np.array(found).T
    return air, km / np.interp(10.0, air, km)


def rollout(n: int, at_ms: float, seed: int) -> tuple[Array, dict[str, Array]]:
    """Days, and on each the share of the fleet with each release, if everybody parks every day."""
    releases = Releases(n, at_ms, seed)
    days_since = np.arange(0, 3 * EVERY_MS / DAY_MS)
    rows = []
    for days in days_since:
        releases.install(np.arange(n), at_ms + days * DAY_MS)
        rows.append(releases.release.copy())
    table = np.stack(rows)
    return days_since, {name(release): (table == release).mean(axis=1) for release in np.unique(table).tolist()}


def _share(broken: Flags, years: Array, low: float) -> float:
    mine = (years >= low) & (years < low + 1)
    return float(broken[mine].mean()) if mine.any() else 0.0


def _figure(columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    return figure, [figure.add_subplot(1, columns, place + 1) for place in range(columns)]


def _cumulative(axes: Axes, values: Array, label: str, colour: str, width: float = 1.4) -> None:
    known = values[~np.isnan(values)]
    shares = np.linspace(0, 1, 201)
    if len(known):
        axes.plot(np.quantile(known, shares), shares, color=colour, label=label, linewidth=width)


def _density(axes: Axes, values: Array, label: str, colour: str) -> None:
    known = values[~np.isnan(values)]
    counts, edges = np.histogram(known, bins=np.arange(-3.3, 3.4, 0.2), density=True)
    axes.stairs(np.where(counts > 0, counts, np.nan), edges, color=colour, label=label)


def _finish(figure: Figure, legends: dict[Axes, Corner], file: Path) -> None:
    for axes, place in legends.items():
        axes.legend(fontsize=7, frameon=False, loc=place)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    # No time and no version in the file: the same fleet makes the same picture.
    figure.savefig(file, metadata={"Software": None})
