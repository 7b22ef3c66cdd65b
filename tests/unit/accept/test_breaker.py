"""The blast-radius breaker: when a cohort is held, whom that excuses, and how it ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.units import NOW

from fleetgate.accept.breaker import LONGEST_HOLD_MS, NEVER_EXCUSED, Breaker, Wish
from fleetgate.accept.surge import CALM_MS, MIN_DEVICES, WINDOW_MS, limit_of
from fleetgate.control.cohorts import Cohort, CohortKind, Mode, cohort_of
from fleetgate.scoring import SIGNALS, total
from fleetgate.spool.format import AlertRecord

THRESHOLD = 100.0
TENANT = Cohort(CohortKind.TENANT, "acme", "")
BAD, GOOD = Cohort(CohortKind.SOFTWARE, "acme", "2026.45"), Cohort(CohortKind.SOFTWARE, "acme", "2026.44")
ISSUER = Cohort(CohortKind.ISSUER, "", "c0ffee")
SIZES = {TENANT: 10_000, BAD: 400, GOOD: 9_600, ISSUER: 20_000}
HOUR_MS = 3_600_000
LIMIT = 20  # of 400
MALFORMED: Mapping[str, float] = {"malformed_body": 100.0}


class Fleet:
    """A breaker, and devices that it is asked about."""

    def __init__(self, sizes: dict[Cohort, int] | None = None) -> None:
        self.breaker = Breaker("edge-1", THRESHOLD)
        self.breaker.sizes = SIZES if sizes is None else sizes
        self.alerts: list[AlertRecord] = []
        self.breaker.on_alert = self.alerts.append

    def ask(
        self,
        number: int,
        now: int = NOW,
        software: Cohort = BAD,
        until_ms: int = NOW + 6 * HOUR_MS,
        scores: Mapping[str, float] = MALFORMED,
        **more: float,
    ) -> bool:
        cohorts = (software, ISSUER, TENANT)
        wish = Wish(("acme", f"tcu-{number}"), cohorts, more or scores, until_ms)
        return self.breaker.holds(wish, now)

    def ask_all(self, numbers: Iterable[int], now: int = NOW, until_ms: int = NOW + 6 * HOUR_MS) -> list[bool]:
        return [self.ask(number, now, until_ms=until_ms) for number in numbers]

    def look_until(self, end: int, start: int = NOW, step: int = 60_000) -> None:
        for now in range(start, end + 1, step):
            self.breaker.look(now)

    def told(self) -> list[tuple[str, str, str]]:
        return [(alert.kind, alert.state, alert.cohort) for alert in self.alerts]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


class TestOpening:
    """When a cohort is held."""

    def test_the_device_that_makes_it_a_surge_is_the_first_to_be_held(self, fleet: Fleet) -> None:
        """20 of 400; those before it went into quarantine, those behind it do not."""
        assert fleet.ask_all(range(LIMIT + 30)) == [False] * (LIMIT - 1) + [True] * 31
        assert fleet.told() == [("breaker", "open", "software 2026.45")]

    @pytest.mark.parametrize(("size", "limit"), [(49, None), (50, 20), (400, 20), (401, 21), (10_000, 500)])
    def test_a_surge_is_twenty_devices_and_a_twentieth(self, size: int, limit: int | None) -> None:
        """Of a cohort of fifty and more."""
        fleet = Fleet({BAD: size})
        answers = fleet.ask_all(range(600))
        assert (answers.index(True) + 1 if True in answers else None) == limit

    def test_a_cohort_that_is_too_small_by_the_last_count_is_counted_again(self) -> None:
        """At twenty in trouble, and at twice as many: each time it takes a look at each device in memory."""
        fleet, asked = Fleet({BAD: 30}), list[int]()

        def recount(cohort: Cohort) -> int:
            asked.append(len(asked))
            return 60 if len(asked) > 1 else 40

        fleet.breaker.recount = lambda cohort: recount(cohort) if cohort == BAD else 0
        assert fleet.ask_all(range(45)) == [False] * 39 + [True] * 6
        assert (len(asked), fleet.alerts[0].detail["size"]) == (2, 60)

    def test_one_device_is_counted_once(self, fleet: Fleet) -> None:
        """A device that an edge asks about again and again is no surge."""
        assert not any(fleet.ask_all([7] * 1_000))

    def test_devices_beyond_five_minutes_are_forgotten(self, fleet: Fleet) -> None:
        """A trickle is no surge: twenty in five minutes are, twenty in six are not."""
        step = 6 * 60_000 // LIMIT
        assert not any(fleet.ask(number, NOW + number * step) for number in range(200))

    def test_the_smallest_cohort_is_held_and_no_other(self, fleet: Fleet) -> None:
        """Where software, issuer and tenant are the same devices, one alert says it."""
        fleet.breaker.sizes = {TENANT: 400, BAD: 400, ISSUER: 400}
        fleet.ask_all(range(40))
        in_the_way = [fleet.ask(number, software=GOOD) for number in range(100, 119)]
        assert fleet.told() == [("breaker", "open", "software 2026.45")]
        assert not any(in_the_way)

    def test_trouble_in_all_software_holds_the_larger_cohort(self) -> None:
        """Few of each version, many of the tenant."""
        fleet = Fleet({TENANT: 400})
        versions = [Cohort(CohortKind.SOFTWARE, "acme", str(number)) for number in range(10)]
        answers = [fleet.ask(number, software=versions[number % 10]) for number in range(30)]
        assert (answers.index(True) + 1, fleet.told()) == (20, [("breaker", "open", "")])

    def test_the_alert_says_how_many_and_why(self, fleet: Fleet) -> None:
        """In words and numbers."""
        fleet.ask_all(range(LIMIT))
        (alert,) = fleet.alerts
        assert alert.detail == {"vehicles": 20, "size": 400, "entered": 19, "signal_1": "malformed_body"}
        assert (alert.tenant, alert.at, alert.key) == (
            "acme",
            NOW,
            "edge edge-1 | acme | breaker | software 2026.45 | ",
        )

    def test_a_forger_that_makes_it_a_surge_has_entered_too(self, fleet: Fleet) -> None:
        """It completes the count, and is not excused."""
        entered = [*fleet.ask_all(range(LIMIT - 1)), fleet.ask(99, bad_mac=105.0)].count(False)
        assert (entered, fleet.alerts[0].detail["entered"]) == (LIMIT, LIMIT)


class TestNoImmunity:
    """What a hold does not excuse."""

    @pytest.mark.parametrize("signal", sorted(NEVER_EXCUSED))
    def test_a_clone_goes_into_quarantine(self, fleet: Fleet, signal: str) -> None:
        """Held cohort or not, and it makes no surge."""
        fleet.ask_all(range(40))
        signs = {"equivocation": 60.0, "epoch_overlap": 60.0} | {signal: 40.0}
        assert not fleet.ask(99, scores=signs | {"malformed_body": 150.0})
        other = Fleet()
        assert not any(other.ask(number, scores=signs | {"replay": 60.0}) for number in range(40))

    def test_what_a_handful_do_beside_the_cohorts_trouble_is_not_excused(self, fleet: Fleet) -> None:
        """A forger in the middle of a bad release."""
        fleet.ask_all(range(40))
        assert not fleet.ask(99, bad_mac=105.0)
        assert not fleet.ask(98, bad_mac=105.0, malformed_body=150.0)
        assert fleet.ask(97, bad_mac=35.0, malformed_body=150.0)

    def test_a_release_with_two_faults_is_excused_for_both(self, fleet: Fleet) -> None:
        """Each leads for at least a quarter."""
        for number in range(40):
            fleet.ask(number, scores={"malformed_body" if number % 2 else "malformed_envelope": 100.0})
        assert fleet.ask(50, malformed_body=100.0)
        assert fleet.ask(51, malformed_envelope=100.0)

    def test_another_cohort_is_not_held_with_it(self, fleet: Fleet) -> None:
        """A device of other software with the same signal."""
        fleet.ask_all(range(40))
        assert not fleet.ask(99, software=GOOD)


class TestASecondTrouble:
    """Of a cohort that is held already: a faulty fix on the day of a bad release, or an attacker who came first."""

    def test_it_is_excused_once_it_is_a_surge_by_itself(self, fleet: Fleet) -> None:
        """As if there had been no other; the first one goes on, and there is one alert."""
        fleet.ask_all(range(25))
        second = [fleet.ask(number, NOW + HOUR_MS, bad_mac=105.0) for number in range(100, 400)]
        assert second == [False] * (LIMIT - 1) + [True] * 281
        assert fleet.ask(50, NOW + HOUR_MS)
        assert fleet.told() == [("breaker", "open", "software 2026.45")]

    def test_so_is_a_third_and_none_displaces_another(self, fleet: Fleet) -> None:
        """However many devices each of them has."""
        for start, signal in enumerate(("malformed_body", "bad_mac", "replay", "unknown_key", "identity_mismatch")):
            answers = [fleet.ask(1_000 * start + number, scores={signal: 105.0}) for number in range(200)]
            assert answers == [False] * (LIMIT - 1) + [True] * 181
        assert fleet.ask(9_000)

    def test_a_trickle_beside_a_hold_is_none(self, fleet: Fleet) -> None:
        """Forgers, nineteen in five minutes, hour by hour."""
        fleet.ask_all(range(40))
        forgers = [
            fleet.ask(1_000 * hour + number, NOW + hour * HOUR_MS, bad_mac=105.0)
            for hour in range(5)
            for number in range(LIMIT - 1)
        ]
        assert not any(forgers)

    def test_it_gives_the_hold_no_other_day(self, fleet: Fleet) -> None:
        """Else whoever has a surge for each day would be immune."""
        fleet.ask_all(range(40), until_ms=NOW + 2 * LONGEST_HOLD_MS)
        for number in range(100, 140):
            fleet.ask(number, NOW + LONGEST_HOLD_MS - 1, until_ms=NOW + 2 * LONGEST_HOLD_MS, bad_mac=105.0)
        fleet.breaker.look(NOW + LONGEST_HOLD_MS)
        assert fleet.told()[-1] == ("breaker_spent", "open", "software 2026.45")
        assert not any(fleet.ask(number, NOW + LONGEST_HOLD_MS, bad_mac=105.0) for number in range(100, 140))

    def test_a_start_remembers_it_by_its_devices(self, fleet: Fleet) -> None:
        """The alert is about the first; those that wait say what else there was."""
        fleet.ask_all(range(40))
        after = Fleet()
        waiting = [
            Wish(("acme", f"tcu-{n}"), (BAD, TENANT), {"bad_mac": 105.0}, NOW + HOUR_MS) for n in range(100, 200)
        ]
        after.breaker.restore(fleet.alerts, waiting, NOW + 60_000)
        assert after.ask(500, NOW + 60_000, bad_mac=105.0)
        assert after.ask(501, NOW + 60_000)


class TestEnding:
    """How a hold ends."""

    def test_it_ends_when_few_would_enter_for_a_quarter_of_an_hour(self, fleet: Fleet) -> None:
        """Their scores have decayed; silence alone, while they are high, ends nothing."""
        fleet.ask_all(range(100))
        fleet.look_until(NOW + 6 * HOUR_MS - 60_000)
        assert fleet.told()[1:] == []
        fleet.look_until(NOW + 6 * HOUR_MS + CALM_MS, NOW + 6 * HOUR_MS)
        assert fleet.told()[1:] == [("breaker", "closed", "software 2026.45")]
        assert fleet.alerts[-1].detail == {"ended_by": "calm", "vehicles": 81, "still_above": 0}

    def test_those_that_are_left_go_where_they_belong(self, fleet: Fleet) -> None:
        """Fewer than half a surge, whose score says quarantine when it ends."""
        fleet.ask_all(range(100), until_ms=NOW + HOUR_MS)
        stubborn = range(200, 209)
        fleet.ask_all(stubborn)
        fleet.look_until(NOW + HOUR_MS + CALM_MS)
        assert fleet.told()[-1] == ("breaker", "closed", "software 2026.45")
        assert not any(fleet.ask_all(stubborn, NOW + HOUR_MS + CALM_MS))

    def test_half_a_surge_keeps_it(self, fleet: Fleet) -> None:
        """One below does not: a hold does not flutter."""
        fleet.ask_all(range(100), until_ms=NOW + HOUR_MS)
        fleet.ask_all(range(200, 210))
        fleet.look_until(NOW + HOUR_MS + CALM_MS)
        assert fleet.breaker.now_open() == fleet.alerts[:1]

    def test_a_cohort_that_updates_itself_away_is_held_on(self, fleet: Fleet) -> None:
        """The census counts its devices under the next version; those in trouble are still as many."""
        fleet.ask_all(range(100))
        fleet.breaker.sizes = {}
        fleet.look_until(NOW + HOUR_MS)
        assert fleet.breaker.now_open() == fleet.alerts

    def test_it_lasts_a_day_at_most(self, fleet: Fleet) -> None:
        """Then its devices go where they belong, and one more alert says that a person is waited for."""
        fleet.ask_all(range(100))
        end = NOW + LONGEST_HOLD_MS
        for now in range(NOW, end, CALM_MS):
            assert all(fleet.ask_all(range(20, 100), now, until_ms=now + HOUR_MS))
            assert not fleet.breaker.look(now)
        assert fleet.breaker.look(end)
        assert fleet.told()[1:] == [
            ("breaker", "closed", "software 2026.45"),
            ("breaker_spent", "open", "software 2026.45"),
        ]
        assert not any(fleet.ask_all(range(20, 100), end))

    def test_there_is_no_second_hold_before_the_trouble_is_over(self, fleet: Fleet) -> None:
        """Else a day of immunity would be followed by the next."""
        self.test_it_lasts_a_day_at_most(fleet)
        end = NOW + LONGEST_HOLD_MS
        fleet.look_until(end + CALM_MS, end)
        assert not any(fleet.ask_all(range(200, 300), end + CALM_MS))
        fleet.look_until(end + 3 * CALM_MS, end + CALM_MS)
        assert fleet.told()[-1] == ("breaker_spent", "closed", "software 2026.45")
        assert any(fleet.ask_all(range(300, 400), end + 3 * CALM_MS))


class TestOverrides:
    """A person's word."""

    def test_off_lets_everybody_in(self, fleet: Fleet) -> None:
        """And ends a hold that there is."""
        fleet.ask_all(range(100))
        fleet.breaker.override({BAD: Mode.OFF})
        assert not any(fleet.ask_all(range(100)))
        assert fleet.breaker.look(NOW)
        assert fleet.alerts[-1].detail["ended_by"] == "a person"

    def test_hold_holds_from_the_first_device(self, fleet: Fleet) -> None:
        """Whatever its signal, a clone's excepted; it is no alert, as somebody knows."""
        fleet.breaker.override({BAD: Mode.HOLD})
        assert (fleet.ask(1), fleet.ask(2, bad_mac=150.0), fleet.ask(3, equivocation=150.0)) == (True, True, False)
        assert fleet.alerts == []

    def test_hold_outlasts_the_day(self, fleet: Fleet) -> None:
        """A person has decided."""
        fleet.ask_all(range(100))
        fleet.breaker.override({BAD: Mode.HOLD})
        fleet.look_until(NOW + 2 * LONGEST_HOLD_MS, step=HOUR_MS)
        assert fleet.ask(1, NOW + 2 * LONGEST_HOLD_MS)

    def test_what_is_said_of_the_smallest_cohort_stands(self, fleet: Fleet) -> None:
        """The tenant is let in, the release is held."""
        fleet.breaker.override({TENANT: Mode.OFF, BAD: Mode.HOLD})
        assert (fleet.ask(1), any(fleet.ask(number, software=GOOD) for number in range(900))) == (True, False)


class TestStarting:
    """An edge that comes back."""

    def test_a_start_ends_no_hold(self, fleet: Fleet) -> None:
        """Its alert stands in the spool: devices go on being held, for what they were held for."""
        fleet.ask_all(range(100))
        after = Fleet()
        waiting = [
            Wish(("acme", f"tcu-{n}"), (BAD, TENANT), {"malformed_body": 150.0}, NOW + HOUR_MS) for n in range(50)
        ]
        after.breaker.restore(fleet.alerts, waiting, NOW + 60_000)
        assert (after.ask(500, NOW + 60_000), after.ask(501, NOW + 60_000, bad_mac=105.0)) == (True, False)
        after.look_until(NOW + HOUR_MS - 60_000)
        assert after.breaker.now_open() == fleet.alerts
        assert after.alerts == []

    def test_a_start_gives_no_new_day(self, fleet: Fleet) -> None:
        """Else whoever can end an edge could go on for ever."""
        self.test_a_spent_hold_stays_spent(fleet)
        after = Fleet()
        after.breaker.restore(fleet.alerts[:1], [], NOW + LONGEST_HOLD_MS - 1)
        after.breaker.look(NOW + LONGEST_HOLD_MS)
        assert after.told()[-1] == ("breaker_spent", "open", "software 2026.45")

    def test_a_spent_hold_stays_spent(self, fleet: Fleet) -> None:
        """Until the trouble is over."""
        TestEnding().test_it_lasts_a_day_at_most(fleet)
        after = Fleet()
        after.breaker.restore(fleet.alerts[-1:], [], NOW + LONGEST_HOLD_MS)
        assert not any(after.ask_all(range(100), NOW + LONGEST_HOLD_MS))


def test_the_signs_of_a_clone_are_signals() -> None:
    """A name that is none would excuse it."""
    assert SIGNALS.keys() >= NEVER_EXCUSED


@pytest.mark.parametrize("cohort", [TENANT, ISSUER, Cohort(CohortKind.SOFTWARE, "acme", "a b \n"), BAD])
def test_a_cohort_is_read_back_from_its_words(cohort: Cohort) -> None:
    """A software version is whatever a device says it is."""
    assert cohort_of(cohort.tenant, str(cohort)) == cohort


SOME = ("malformed_body", "bad_mac", "replay", "equivocation", "overlapping_sessions")
asking = st.tuples(
    st.integers(0, 80),
    st.integers(0, 400_000),
    st.dictionaries(st.sampled_from(SOME), st.floats(1, 200), min_size=1, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(asking, max_size=250), st.integers(40, 2_000))
def test_whatever_comes_no_more_than_a_surge_enters_while_nobody_has_decided(
    asked: list[tuple[int, int, dict[str, float]]], size: int
) -> None:
    """In any five minutes fewer devices than a surge go into quarantine for one signal, whatever else is held, alerts
    open and close in turn, and no clone is ever held."""
    fleet, now, entered = Fleet({BAD: size}), NOW, {signal: dict[int, int]() for signal in SOME}
    for number, later, scores in asked:
        now += later
        fleet.breaker.look(now)
        if total(scores, THRESHOLD) < THRESHOLD:
            continue
        held = fleet.ask(number, now, until_ms=now + HOUR_MS, scores=scores)
        signs = {signal: score for signal, score in scores.items() if signal in NEVER_EXCUSED}
        assert not (total(signs, THRESHOLD) >= THRESHOLD and held)
        signal = next(iter(scores))
        if not held and len(scores) == 1 and signal not in NEVER_EXCUSED:
            entered[signal][number] = now
        if not fleet.breaker.now_open() or fleet.breaker.now_open()[0].kind == "breaker":
            for those in entered.values():
                assert sum(now - at < WINDOW_MS for at in those.values()) < max(limit_of(size), MIN_DEVICES)
    states = [alert.state for alert in fleet.alerts]
    assert states == ["open", "closed"] * (len(states) // 2) + ["open"] * (len(states) % 2)
