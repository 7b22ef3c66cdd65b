"""What opens and closes, fed with looks made by hand: sizes, persistence, cohorts, hours of a day."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from fleetgate.load.watch import judging
from fleetgate.load.watch.changes import CALM_LOOKS, PARKED_MS, PERSISTS, Changes, Closing, Opening
from fleetgate.load.watch.cohorts import Cohort, explaining
from fleetgate.load.watch.fleet import FORGET_MS, Fleet
from fleetgate.load.watch.judging import Judge
from fleetgate.load.watch.kinds import KINDS, Series
from fleetgate.load.watch.measures import LOOK_MS, Measure
from fleetgate.load.watch.usual import LEAST_LOOKS, LOOKS, RENEW_LOOKS, Shapes, Usual, above_median, within_quartiles

ACME = Cohort("acme")
OLD, NEW = Cohort("acme", "1"), Cohort("acme", "2")
OTHER = Cohort("globex")


def one(value: float, cohort: Cohort = ACME, kind: str = "refused", signal: str = "bad_mac", **other: Any) -> Measure:
    facts = {"size": 100, "about": 100, "noise": 0.0, **other}
    return Measure(kind, cohort, signal, value, **facts)


class Fed:
    """Looks in a row; `gone` is how many vehicles of a silent alert are still silent, and `driving` how many of the
    tenant are known now."""

    def __init__(self) -> None:
        self.judge = Judge()
        self.changes = Changes(self.judge)
        self.now_ms = 0
        self.gone, self.driving = 0, 1000
        self.told: list[tuple[int, str, Series]] = []
        self.looks = 0

    def look(self, *measures: Measure, mute: bool = False) -> list[Opening | Closing]:
        self.now_ms += LOOK_MS
        self.looks += 1
        found = self.changes.look(list(measures), self.now_ms, self._known_in, mute=mute)
        self.told += [(self.looks, type(each).__name__, each.series) for each in found]
        return found

    def _known_in(self, cohort: Cohort, at_ms: int) -> int:
        return self.driving if at_ms == self.now_ms else self.gone

    def many(self, count: int, *measures: Measure) -> list[tuple[str, Cohort]]:
        """What is told in so many equal looks."""
        before = len(self.told)
        for _ in range(count):
            self.look(*measures)
        return [(what, series.cohort) for _, what, series in self.told[before:]]


@pytest.fixture
def fed() -> Fed:
    return Fed()


def test_a_change_opens_once_with_the_second_look_and_closes_once(fed: Fed) -> None:
    """One look is a stall; two are an alert, which stays one until it has been calm for a minute."""
    fed.many(LEAST_LOOKS, one(0.01))
    assert fed.look(one(0.5)) == []
    [opening] = fed.look(one(0.4))
    assert isinstance(opening, Opening)
    assert (opening.before, opening.after, opening.vehicles) == (0.01, 0.4, 100)
    assert opening.since_ms == fed.now_ms - (PERSISTS - 1) * LOOK_MS
    assert fed.many(LOOKS, one(0.4)) == []
    assert fed.many(CALM_LOOKS - 1, one(0.01)) == []
    assert fed.many(20, one(0.01)) == [("Closing", ACME)]


def test_half_of_a_change_neither_opens_nor_closes(fed: Fed) -> None:
    """Between calm and change nothing is told: an alert does not flutter."""
    fed.many(LEAST_LOOKS, one(0.01))
    between = 0.01 + 0.75 * KINDS["refused"].effect
    assert fed.many(20, one(between)) == []
    fed = Fed()
    fed.many(LEAST_LOOKS, one(0.01))
    fed.many(PERSISTS, one(0.4))
    assert fed.many(50, one(between)) == []


@pytest.mark.parametrize(
    "measure",
    [one(0.01), one(0.05), one(-0.9), one(0.5, about=9), one(0.5, noise=0.1), one(0.9, Cohort("nobody knew"))],
    ids=["as usual", "too small", "the good way", "too few vehicles", "chance may do it", "no past"],
)
def test_what_is_no_change(fed: Fed, measure: Measure) -> None:
    """Each of the conditions keeps an alert from opening."""
    fed.many(LEAST_LOOKS, one(0.01))
    assert fed.many(10, measure) == []


def test_nothing_opens_before_there_is_a_past(fed: Fed) -> None:
    """In the first minutes nobody knows what is usual, whatever it is."""
    rng = random.Random(1)
    for _ in range(LEAST_LOOKS):
        assert fed.look(one(rng.random()), one(rng.random(), OTHER, "silent", "")) == []


@pytest.mark.parametrize("younger_by", range(1, RENEW_LOOKS + 1))
def test_a_cohort_that_is_a_little_younger_than_its_tenant_has_the_same_past(fed: Fed, younger_by: int) -> None:
    """A fleet starts within half a minute: what all have and always had is no news in the last of them."""
    there = [one(0.9, cohort, "signal_presence", "Vehicle.Speed") for cohort in (ACME, NEW)]
    fed.many(younger_by, there[0])
    assert fed.many(LEAST_LOOKS + 2 * RENEW_LOOKS, *there) == []


def test_an_hours_rhythm_is_no_change(fed: Fed) -> None:
    """A rate that trebles within three hours and falls again is a day's; one that trebles at once is not."""
    rng = np.random.default_rng(1)
    for look in range(3 * 360):
        rate = 100 * (2 - np.cos(2 * np.pi * look / (6 * 360))) * rng.lognormal(0, 0.03)
        assert fed.look(one(float(np.log(rate)), ACME, "event_rate", "")) == []
    assert fed.many(3, one(float(np.log(rate * 3)), ACME, "event_rate", "")) == [("Opening", ACME)]


def test_what_scatters_must_change_more(fed: Fed) -> None:
    """Six scatters: a share that jumps about all day is no alert when it jumps."""
    rng = np.random.default_rng(2)
    for _ in range(2_000):
        assert fed.look(one(float(np.clip(rng.normal(0.3, 0.1), 0, 1)))) == []
    assert fed.many(2, one(1.0)) == [("Opening", ACME)]


def test_trouble_does_not_become_usual_by_lasting(fed: Fed) -> None:
    """After an hour of trouble, what was usual before is calm, and not the next change."""
    fed.many(LEAST_LOOKS, one(0.01, kind="clock_skew", signal=""))
    assert fed.many(360, one(0.5, kind="clock_skew", signal="")) == [("Opening", ACME)]
    assert fed.many(20, one(0.01, kind="clock_skew", signal="")) == [("Closing", ACME)]


def test_what_lasts_for_hours_is_how_it_is_now(fed: Fed) -> None:
    """After six hours the alert closes and the new value is the usual one, from which a change is told again."""
    fed.many(LEAST_LOOKS, one(0.01))
    assert fed.many(6 * 360 + 10, one(0.5)) == [("Opening", ACME), ("Closing", ACME)]
    assert fed.many(400, one(0.5)) == []
    assert fed.many(3, one(0.9)) == [("Opening", ACME)]


def test_a_reason_that_never_was_is_a_change_from_nothing(fed: Fed) -> None:
    """Kinds whose absence means zero need no past of their own, if their cohort has one."""
    calm = one(0.0, kind="silent", signal="")
    fed.many(LEAST_LOOKS, calm)
    assert fed.many(2, calm, one(0.3)) == [("Opening", ACME)]
    assert fed.many(20, calm) == [("Closing", ACME)]


def presence(share: float, cohort: Cohort = ACME, signal: str = "", size: int = 200) -> Measure:
    """As measures.py tells it; without a signal: of those that report any."""
    having = round(share * size)
    noise = 0.5 / size**0.5
    return one(having / size, cohort, "signal_presence", signal, size=size, about=having, noise=noise)


@pytest.mark.parametrize("after", [0.5, 0.3, 0.11, 0.09, 0.005, 0.0])
def test_a_signal_that_is_lost_is_told_about_those_that_lost_it(fed: Fed, after: float) -> None:
    """However few still report it, and if none does; the alert ends when it is back."""
    there = [presence(1.0), presence(0.95, signal="Speed")]
    lost = [presence(1.0), *([presence(after, signal="Speed")] if after else [])]
    fed.many(LEAST_LOOKS, *there)
    assert fed.look(*lost) == []
    [opening] = fed.look(*lost)
    assert isinstance(opening, Opening)
    assert (opening.series.signal, opening.vehicles) == ("Speed", round((0.95 - after) * 200))
    assert (opening.before, opening.after) == (0.95, after)
    assert fed.many(100, *lost) == []
    assert fed.many(10, *there) == [("Closing", ACME)]


def test_a_small_cohort_tells_when_all_of_it_lost_a_signal(fed: Fed) -> None:
    """Twenty vehicles are a cohort; that half of so few lack it may be chance."""
    fed.many(LEAST_LOOKS, presence(1.0, size=20), presence(1.0, signal="Speed", size=20))
    assert fed.many(9, presence(1.0, size=20), presence(0.5, signal="Speed", size=20)) == []
    assert fed.many(2, presence(1.0, size=20)) == [("Opening", ACME)]


def test_a_cohort_that_is_silent_has_lost_no_signal(fed: Fed) -> None:
    """Too few report anything at all: that nobody reports this is no news. It is the silence that is told."""
    there = [presence(1.0), presence(0.95, signal="Speed")]
    fed.many(LEAST_LOOKS, *there, one(0.0, ACME, "silent", ""))
    assert {series.kind for _, _, series in fed.told} == set()
    fed.many(20, one(1.0, ACME, "silent", ""), one(0.0, ACME, "event_rate", ""))
    assert {series.kind for _, _, series in fed.told} == {"silent"}


def test_a_cohort_that_shrinks_has_lost_no_signal(fed: Fed) -> None:
    """Below twenty vehicles it is none; what those few report is known all the same."""
    fed.many(LEAST_LOOKS, presence(1.0, size=20), *(presence(1.0, signal=name, size=20) for name in ("Speed", "Fuel")))
    assert fed.many(40, presence(1.0, signal="Speed", size=19)) == []


def test_a_release_that_never_had_a_signal_is_told(fed: Fed) -> None:
    """It has no past, and its tenant has: nearly all report this signal. Of one that few have it is no news."""
    usual = [presence(1.0), presence(0.95, signal="Speed"), presence(0.7, signal="Trailer")]
    fed.many(LEAST_LOOKS, *usual)
    assert fed.many(5, *usual, presence(1.0, NEW, size=60)) == [("Opening", NEW)]
    assert [series.signal for _, _, series in fed.told] == ["Speed"]


def test_vehicles_that_come_back_in_the_morning_have_lost_no_signal(fed: Fed) -> None:
    """A software that there was on other days is not new: it may be that of cars without this signal."""
    usual = [presence(1.0), presence(0.95, signal="Fuel")]
    fed.judge.earlier_days({}, {("acme", "software 2")})
    fed.many(LEAST_LOOKS, *usual)
    assert fed.many(90, *usual, presence(1.0, NEW, size=60)) == []


def test_a_new_software_is_compared_with_its_tenant(fed: Fed) -> None:
    """It has no past: half of its messages refused is a change from the tenant's none."""
    usual = [one(0.5, cohort, "median", "Speed") for cohort in (ACME, OLD)]
    fed.many(LEAST_LOOKS, *usual)
    assert fed.many(4, *usual, one(0.5, NEW, "median", "Speed", size=30, about=30)) == []
    assert fed.many(2, *usual, one(0.0, NEW, "median", "Speed", size=30, about=30)) == [("Opening", NEW)]


@pytest.mark.parametrize(
    ("young", "value", "told"),
    [
        (NEW, 0.9, []),
        (NEW, 1.0, [("Opening", NEW)]),
        (Cohort("acme", cell=(107, 20)), 0.9, []),
    ],
    ids=["a version, nearly twice", "a version, twice", "a cell"],
)
def test_a_young_cohort_must_be_silent_twice_as_much(
    fed: Fed, young: Cohort, value: float, told: list[tuple[str, Cohort]]
) -> None:
    """Of versions and cells other least changes count than of tenants: those, twice."""
    usual = one(0.05, ACME, "silent", "", size=500, noise=0.006)
    fed.many(LEAST_LOOKS, usual)
    assert fed.many(5, usual, one(value, young, "silent", "", size=100, about=90, noise=0.014)) == told


def everywhere(value: Callable[[Cohort], float], cohorts: Iterable[Cohort]) -> list[Measure]:
    return [one(value(cohort), cohort, "clock_skew", "", size=100 if cohort == ACME else 50) for cohort in cohorts]


def test_the_cohort_that_explains_a_change_is_told(fed: Fed) -> None:
    """One software of two: that one. Both: the tenant. Never both of a pair of relatives at once."""
    cohorts = (ACME, OLD, NEW)
    fed.many(LEAST_LOOKS, *everywhere(lambda _: 0.01, cohorts))
    assert fed.many(3, *everywhere({ACME: 0.5, OLD: 1.0, NEW: 0.01}.__getitem__, cohorts)) == [("Opening", OLD)]
    assert fed.many(3, *everywhere(lambda _: 1.0, cohorts)) == [("Opening", NEW)]
    fed = Fed()
    fed.many(LEAST_LOOKS, *everywhere(lambda _: 0.01, cohorts))
    assert fed.many(5, *everywhere(lambda _: 1.0, cohorts)) == [("Opening", ACME)]


def test_all_tenants_together_speak_where_none_does_alone() -> None:
    """A software that is rare in each tenant is seen in all of them; where a tenant shows it, that tenant is told."""
    everybody = Cohort("", "1")
    parts = {ACME: 100, OLD: 20, everybody: 40}
    assert explaining([everybody], parts, {everybody}.__contains__) == [everybody]
    assert explaining([everybody, OLD], parts, {everybody, OLD}.__contains__) == [OLD]


def test_a_region_is_one_alert_and_closes_when_its_vehicles_are_back(fed: Fed) -> None:
    """Cells that touch are one region; it stays open while their vehicles are silent, though nobody measures them."""
    cells = [Cohort("acme", cell=cell) for cell in ((107, 20), (107, 19), (96, 23))]

    def shares(*values: float) -> list[Measure]:
        everything = one(sum(values) / 6, ACME, "silent", "", size=300, about=80)
        sizes = (51, 50, 199)
        parts = zip(cells, values, sizes, strict=True)
        return [everything, *(one(v, c, "silent", "", size=size, about=40) for c, v, size in parts)]

    fed.many(LEAST_LOOKS, *shares(0.0, 0.0, 0.0))
    assert fed.many(3, *shares(1.0, 0.9, 0.0)) == [("Opening", cells[0])]
    fed.gone = 40
    assert fed.many(100, shares(0, 0, 0)[-1]) == []
    fed.gone = 10
    assert fed.many(10, shares(0, 0, 0)[-1]) == [("Closing", cells[0])]


SILENT = Series("silent", ACME, "")
HOUR_LOOKS = PARKED_MS // LOOK_MS


def test_who_is_silent_for_an_hour_is_parked_while_others_drive_on(fed: Fed) -> None:
    """Not a look earlier, and not at the next full hour."""
    fed.changes.resume(SILENT, 0, 0, 40)
    fed.gone, fed.driving = 40, 4
    assert fed.many(HOUR_LOOKS + CALM_LOOKS - 2, one(0.0)) == []
    assert fed.many(1, one(0.0)) == [("Closing", ACME)]


def test_nobody_parks_while_nearly_all_are_silent(fed: Fed) -> None:
    """A total outage of a day stays told until half are back, or others have driven for an hour."""
    fed.changes.resume(SILENT, 0, 0, 40)
    fed.gone, fed.driving = 40, 3
    assert fed.many(24 * HOUR_LOOKS) == []
    fed.driving = 15
    assert fed.many(HOUR_LOOKS + CALM_LOOKS - 2, one(0.0)) == []
    assert fed.many(1, one(0.0)) == [("Closing", ACME)]
    fed.changes.resume(SILENT, fed.now_ms, fed.now_ms, 40)
    fed.driving = 3
    assert fed.many(24 * HOUR_LOOKS) == []
    fed.gone = 20
    assert fed.many(CALM_LOOKS) == [("Closing", ACME)]


def test_a_tenant_that_is_never_back_is_not_missed_for_ever(fed: Fed) -> None:
    """After a week nobody could tell any more who was there."""
    fed.changes.resume(SILENT, 0, 0, 40)
    fed.gone, fed.driving = 40, 0
    assert fed.many(7 * 24 * HOUR_LOOKS - 1) == []
    assert fed.many(1) == [("Closing", ACME)]


def test_earlier_days_explain_an_hour(fed: Fed) -> None:
    """What was so at this hour on other days is no change; what was not, is."""
    fed.judge.earlier_days({("acme", "refused", "", "bad_mac"): (0.0, 0.4)}, set())
    fed.many(LEAST_LOOKS, one(0.01))
    assert fed.many(5, one(0.35)) == []
    assert fed.many(2, one(0.6)) == [("Opening", ACME)]


def test_a_restart_goes_on_with_what_is_open(fed: Fed) -> None:
    """Looked at again in silence, an alert that is open neither opens again nor becomes usual; it closes when calm."""
    began_ms = LEAST_LOOKS * LOOK_MS + 1
    fed.changes.resume(Series("refused", ACME, "bad_mac"), began_ms, began_ms, 100)
    for value in [*[0.01] * LEAST_LOOKS, *[0.5] * 60]:
        assert fed.look(one(value), mute=True) == []
    assert fed.many(10, one(0.5)) == []
    assert fed.many(10, one(0.01)) == [("Closing", ACME)]


def test_a_cohort_that_is_gone_ends_its_alert(fed: Fed) -> None:
    """A release that was rolled back is no longer measured: its alert closes after five minutes."""
    fed.many(LEAST_LOOKS, one(0.01), one(0.01, OLD))
    assert fed.many(2, one(0.01), one(0.9, OLD)) == [("Opening", OLD)]
    assert fed.many(60, one(0.5, OTHER)) == [("Closing", OLD)]


def test_memory_is_the_median_of_half_an_hour() -> None:
    """Half of it may be anything; holes in it do not count; older looks are forgotten."""
    usual = Usual()
    steady, holes, late = usual.place(), usual.place(), usual.place()
    for look in range(LOOKS + 10):
        usual.remember(np.array([5.0 + look % 3, 2.0 if look % 2 else np.nan, 9.0 if look >= LOOKS else 1e9]))
    middle = usual.middle()
    assert middle.median[[steady, holes]].tolist() == [6.0, 2.0]
    assert middle.looks[[steady, holes]].tolist() == [LOOKS, LOOKS / 2]
    assert middle.median[late] == 1e9
    again = usual.place(zeros=12)
    assert (usual.middle().looks[again], usual.middle().median[again]) == (12, 0.0)
    many = [usual.place() for _ in range(300)]
    assert usual.middle().median[steady] == 6.0
    assert np.isnan(usual.middle().median[many]).all()


def test_shapes_are_compared_by_shares() -> None:
    """Speeds that gather at limits: a tenth more at the higher one moves the share by a tenth, and the median by 30."""
    levels = np.linspace(0.05, 0.95, 19)
    usual = np.quantile([50.0] * 52 + [80.0] * 48, levels, method="lower")[None]
    now = np.quantile([50.0] * 45 + [80.0] * 55, levels, method="lower")[None]
    assert (usual[0, 9], now[0, 9]) == (50.0, 80.0)
    assert abs(above_median(usual, now)[0] - above_median(usual, usual)[0]) < 0.1
    shapes = Shapes(19)
    for _ in range(LEAST_LOOKS):
        shapes.learn(["a"], usual)
    assert np.allclose(shapes.usual(["b"], ["a"], now), usual)
    stuck = np.full_like(now, -40.0)
    assert above_median(usual, stuck)[0] == 0
    assert within_quartiles(usual, usual)[0] > 0.5
    assert within_quartiles(usual, stuck)[0] == 0


def test_who_makes_up_cohorts_fills_no_place_of_other_tenants(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may have as many as are free still."""
    monkeypatch.setattr(judging, "MOST_SERIES", 20)
    evil, good = (Series("refused", Cohort(tenant), "bad_mac") for tenant in ("evil", "globex"))
    fed.look(*(one(0.01, Cohort("evil", f"made up {number}")) for number in range(30)), one(0.01, good.cohort))
    assert good in fed.judge._places
    assert evil not in fed.judge._places
    fed.changes.forget()
    fed.many(LOOKS, one(0.01, good.cohort))
    assert fed.many(PERSISTS, one(0.5, good.cohort)) == [("Opening", good.cohort)]


def test_cohorts_that_are_gone_make_room_for_others(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has vehicles enough may make up cohorts without end: the watch is full for an hour, and not for good.
    What is remembered of the others is not touched."""
    monkeypatch.setattr(judging, "MOST_SERIES", 12)
    late = Cohort("acme", "late")
    made_up = [one(0.01, Cohort("acme", f"made up {number}")) for number in range(5)]
    fed.look(one(0.01), *made_up)
    fed.many(LOOKS, one(0.01), one(0.01, late))
    assert Series("refused", late, "bad_mac") not in fed.judge._places
    fed.changes.forget()
    fed.look(one(0.01))
    assert list(fed.judge._places) == [Series("refused", ACME, "bad_mac")]
    fed.many(LEAST_LOOKS + RENEW_LOOKS, one(0.01), one(0.01, late))
    assert fed.many(PERSISTS, one(0.01), one(0.5, late)) == [("Opening", late)]


def test_shapes_that_nobody_asks_for_are_forgotten() -> None:
    """After an hour or two; those that are asked for stay, learnt or not."""
    shapes = Shapes(3)
    usual, other = np.array([[1.0, 2.0, 3.0]]), np.array([[7.0, 8.0, 9.0]])
    for number in range(100):
        shapes.learn([f"made up {number}"], other)
    for _ in range(LEAST_LOOKS):
        shapes.learn(["kept"], usual)
    shapes.usual(["kept"], ["all"], other)
    shapes.forget()
    assert len(shapes._places) == 1
    assert shapes.usual(["kept"], ["all"], other).tolist() == usual.tolist()
    shapes.learn(["new"], other)
    assert shapes._shapes[1].tolist() == other[0].tolist()


def heard(vehicle: str, software: str, latitude: float, at_ms: int) -> dict[str, Any]:
    """One vehicle in one look."""
    counts = ("pulses", "messages", "events", "faults", "unknown", "readings", "implausible")
    numbers: dict[str, list[float]] = {name: [1] for name in counts}
    numbers |= {"epoch": [1], "first_seq": [1], "last_seq": [1], "delay_ms": [0], "held": [0], "located": [1]}
    numbers |= {"last_ms": [at_ms], "place_ms": [at_ms]}
    numbers |= {"latitude": [latitude], "longitude": [7.0]}
    texts = {"tenant": ["acme"], "vehicle_id": [vehicle], "device_id": [vehicle], "software": [software]}
    return {**texts, "config": ["c"], **{name: np.array(value) for name, value in numbers.items()}}


def test_words_that_no_vehicle_uses_any_more_are_forgotten() -> None:
    """A device may call its software something else with each message, and be everywhere."""
    fleet = Fleet()
    for number in range(50):
        fleet.take(heard("inventive", f"made up {number}", float(number), FORGET_MS + number), 0, 10_000)
    fleet.take(heard("car", "1", 48.0, FORGET_MS), 0, 10_000)
    fleet.forget(FORGET_MS)
    assert (set(fleet._words), len(fleet._cells)) == ({"acme", "made up 49", "1", "c"}, 2)
    cohorts = {cohort for level in fleet.levels() for cohort in level.cohorts}
    assert cohorts >= {Cohort("acme"), Cohort("acme", "1", "c"), Cohort("acme", "made up 49", "c")}
    assert {cohort.cell for cohort in fleet.cells("cell").cohorts} == {(96, 14), (98, 14)}
