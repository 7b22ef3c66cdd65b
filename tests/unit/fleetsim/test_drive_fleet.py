"""The life of the simulated fleet: day and night, batteries, tunnels, faults and software."""

from __future__ import annotations

import numpy as np
import pytest

from fleetsim.drive import Fleet
from fleetsim.drive.faults import FAULTS, Faults
from fleetsim.drive.regions import DAY_MS
from fleetsim.drive.releases import EVERY_MS, Releases

AFTERNOON = 1_767_715_200_000  # Tuesday 2026-01-06, 16:00 UTC
SUNDAY_NOON = 1_768_129_200_000  # 2026-01-11, 11:00 UTC
TUESDAY_NOON = SUNDAY_NOON - 5 * 86_400_000
CHARGE, HEALTH, CURRENT, CHARGING, HDOP, CONNECTED = 13, 14, 16, 22, 12, 43
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """Two thousand vehicles on a Tuesday afternoon."""
    return Fleet(2_000, AFTERNOON, seed=5)


def test_it_is_day_where_the_clocks_say_so(fleet: Fleet) -> None:
    """At one moment, far more drive where it is afternoon than where it is night."""
    hour, driving = fleet.week_hour() % 24, fleet.driving
    day, night = driving[(hour >= 9) & (hour < 19)].mean(), driving[(hour < 5)].mean()
    assert day > 0.05
    assert night < day / 3


def test_vans_rest_on_sundays() -> None:
    """The same hour on a Tuesday has several times as many on the road."""

    def share(at_ms: int) -> float:
        found = Fleet(1_500, at_ms, seed=5)
        vans = np.array([kind == "van" for kind in found.kind])
        return float((found.driving & vans).sum() / vans.sum())

    assert share(TUESDAY_NOON) > 3 * share(SUNDAY_NOON)


def test_who_drives_is_awake_and_most_of_the_parked_sleep(fleet: Fleet) -> None:
    """A parked unit is awake while it charges and some minutes after the trip."""
    awake, driving = fleet.awake, fleet.driving
    assert (awake | ~driving).all()
    assert (awake | ~(fleet.columns()[CHARGING] > 0)).all()
    assert awake[~driving].mean() < 0.3


def test_time_passes_for_the_batteries() -> None:
    """Driving empties, charging fills, a parked car keeps what it has; nobody is ever stranded."""
    fleet = Fleet(300, AFTERNOON, seed=2)
    empties, fills, keeps = [], [], []
    for step in range(1, 51):
        before, was = fleet.columns()[CHARGE], (fleet.driving, fleet.awake, fleet.columns()[CHARGING] > 0)
        fleet.advance(AFTERNOON + step * 2 * MINUTE_MS)
        change, now = fleet.columns()[CHARGE] - before, (fleet.driving, fleet.awake, fleet.columns()[CHARGING] > 0)
        drove, slept, charged = was[0] & now[0], ~was[1] & ~now[1], was[2] & now[2]
        empties += change[drove].tolist()
        fills += change[charged].tolist()
        keeps += change[slept].tolist()
    assert -1.5 < np.mean(empties) < -0.1
    assert min(fills) > 0
    assert max(map(abs, keeps)) < 0.01
    assert fleet.columns()[CHARGE].min() > 1.0


def test_batteries_fade_with_age(fleet: Fleet) -> None:
    """Around two percent a year, more for some than for others."""
    years, lost = fleet.years, 100 - fleet.columns()[HEALTH]
    old = years > 4
    assert 1.4 < (lost[old] / years[old]).mean() < 3.0
    assert np.corrcoef(years, lost)[0, 1] > 0.7


def test_a_tunnel_ends_the_connection_and_the_fix() -> None:
    """Some are in one within some minutes; they are awake, not online, and come out again."""
    fleet = Fleet(2_500, AFTERNOON, seed=8)
    inside = []
    for step in range(60):
        fleet.advance(AFTERNOON + step * 5_000)
        hidden = fleet.awake & ~fleet.online
        columns = fleet.columns()
        assert (columns[HDOP][hidden] == 20).all()
        assert (columns[CONNECTED] == fleet.online).all()
        inside.append(hidden)
    seen = np.stack(inside)
    assert seen.any()
    assert (seen.any(axis=0) & ~seen[-1]).any()


def test_the_readings_of_one_are_its_place_in_the_columns(fleet: Fleet) -> None:
    """By the same numbers."""
    columns, one = fleet.columns(), fleet.readings(17)
    assert one == {number: column[17] for number, column in columns.items()}


def test_faults_come_with_age_heat_and_cold() -> None:
    """Each code has its own reasons."""
    rng = np.random.default_rng(1)
    n = 20_000

    def share(code: str, years: float, pack: float) -> float:
        faults = Faults(np.full(n, years), np.full(n, pack), rng)
        return float(faults.active[[fault.code for fault in FAULTS].index(code)].mean())

    assert share("P0A7F", 8, 20) > 5 * share("P0A7F", 1, 20)
    assert share("P0A7E", 5, 38) > 3 * share("P0A7E", 5, 20)
    assert share("P0562", 5, -10) > 2 * share("P0562", 5, 20)


def test_faults_are_repaired() -> None:
    """The share that shows one stays as it is over months."""
    years, pack = np.full(20_000, 5.0), np.full(20_000, 20.0)
    faults = Faults(years, pack, np.random.default_rng(1))
    first = faults.active.mean()
    for _ in range(200):
        faults.pass_time(years, pack, 0.5)
    assert faults.active.mean() == pytest.approx(first, rel=0.15)


def test_a_release_rolls_out_in_stages() -> None:
    """One in a hundred, a tenth, a half, nearly all; and nobody ever goes back."""
    everybody = np.arange(10_000)
    start_ms = 4 * DAY_MS + DAY_MS / 2 + 700 * EVERY_MS
    releases = Releases(len(everybody), start_ms - 1, seed=1)
    before = releases.release.copy()
    shares = {}
    for day in (1, 5, 10, 22):
        releases.install(everybody, start_ms + day * DAY_MS)
        assert (releases.release >= before).all()
        before = releases.release.copy()
        shares[day] = (releases.release == 700).mean()
    assert shares == {1: pytest.approx(0.01, abs=0.005), 5: pytest.approx(0.1, abs=0.02),
                      10: pytest.approx(0.49, abs=0.03), 22: pytest.approx(0.97, abs=0.02)}  # fmt: skip


def test_software_and_configuration_have_names(fleet: Fleet) -> None:
    """Of a few releases; most run one of the newest two."""
    assert set(fleet.software) <= {"2025.44.1", "2025.48.1", "2025.52.1"}
    assert len(fleet.config) == len(fleet.software) == len(fleet)


def test_the_same_calls_make_the_same_fleet() -> None:
    """A run can be repeated; another seed is another fleet."""

    def positions(seed: int) -> list[float]:
        fleet = Fleet(50, AFTERNOON, seed)
        fleet.advance(AFTERNOON + 10 * MINUTE_MS)
        return [*fleet.latitude.tolist(), *fleet.columns()[CURRENT].tolist()]

    assert positions(1) == positions(1)
    assert positions(1) != positions(2)


def test_a_fleet_does_not_live_backwards(fleet: Fleet) -> None:
    """A caller whose clock jumps is told."""
    with pytest.raises(ValueError, match="lives forwards"):
        fleet.advance(AFTERNOON - 1)
