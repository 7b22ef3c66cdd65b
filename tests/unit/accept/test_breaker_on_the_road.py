"""The breaker between scores and states, on a real spool: cohorts before the trouble, a kill, a person's word."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.gates import Gate, Records, record
from tests.units import BODY, EVENT, KEY_DIGEST, NOW, TENANT, hkdf, pack, sign

from fleetgate.accept.census import Census, cohorts_of
from fleetgate.accept.recovery import Recovery
from fleetgate.control.cohorts import Cohort, CohortKind, Mode
from fleetgate.control.records import DeviceState
from fleetgate.judge import Reason

FLEET = 60
NAMES = [f"tcu-{number:04}" for number in range(FLEET)]
KEYS = {name: hkdf(bytes(range(32)), TENANT, name, KEY_DIGEST) for name in NAMES}
BEFORE = Cohort(CohortKind.SOFTWARE, TENANT, "2026.44.1")
BAD = pack(["2026.45.0", "cfg-7f3a", [[0, "sample", {}, {}]]])
UPDATED = pack(["2026.45.0", "cfg-7f3a", [EVENT]])
MISTAKES = 11  # of 10 points each: by the last one a little of the first has faded
HOUR_MS = 3_600_000


class Fleet:
    """Devices that the gate has seen under the same software, and counted."""

    def __init__(self, directory: Path) -> None:
        self.gate = Gate(directory, *(record(name) for name in NAMES))
        self.sent = dict.fromkeys(NAMES, 0)
        for name in NAMES:
            self.send(name, BODY)
        self.gate.checkpoint()
        self.count()

    def count(self) -> None:
        Census(self.gate.spool.checkpoint, self.gate.breaker, self.gate.clock).count()

    def send(self, name: str, body: bytes, times: int = 1, key: bytes | None = None) -> None:
        caller = self.gate.caller(name)
        for _ in range(times):
            raw = sign(seq=self.sent[name], body=body, key=key or KEYS[name], sent_at=self.gate.clock.ms)
            self.gate.intake.receive(caller, raw, None, self.gate.clock.ms)
            self.sent[name] += 1

    def mistake(self, name: str, *, updated: bool) -> None:
        """As often as it takes; `updated`: in between it names another version."""
        self.send(name, BAD)
        if updated:
            self.send(name, UPDATED)
        self.send(name, BAD, MISTAKES - 1)

    def states(self) -> list[str]:
        return [self.gate.known(name).standing.state.value for name in NAMES]

    def kill_and_recover(self) -> None:
        """As an edge starts."""
        self.gate.intake.commit()
        self.gate.kill()
        self.gate.start()
        registry = Records(self.gate.fleet, self.gate.spool.checkpoint, self.gate.records)
        recovery = Recovery(self.gate.spool, registry, self.gate.fleet, self.gate.settings)
        recovery.run()
        self.count()
        self.gate.scores.restore(recovery.alerts.values(), recovery.standing(DeviceState.WATCHED))


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "spool")


def test_a_bad_release_is_watched(fleet: Fleet) -> None:
    """All but those before the surge; and each message of it is refused as ever."""
    for name in NAMES:
        fleet.send(name, BAD, MISTAKES)
    assert fleet.states() == ["quarantined"] * 19 + ["watched"] * 41
    assert fleet.gate.counts.reasons["mqtt"][Reason.MALFORMED_BODY] == FLEET * MISTAKES


def test_a_fleet_that_came_after_the_last_count_is_held_all_the_same(tmp_path: Path) -> None:
    """The checkpoint knows nobody yet; whoever is in memory is counted when twenty are in trouble."""
    fleet = Fleet(tmp_path / "spool")
    fleet.gate.breaker.sizes = {}
    for name in NAMES:
        fleet.send(name, BAD, MISTAKES)
    assert fleet.states() == ["quarantined"] * 19 + ["watched"] * 41
    assert fleet.gate.breaker.now_open()[0].detail["size"] == FLEET


def test_the_cohort_is_that_of_before_the_trouble(fleet: Fleet) -> None:
    """A device cannot leave it by naming other software once it is scored, nor one by one by an update in between."""
    for name in NAMES:
        fleet.mistake(name, updated=True)
    [alert] = fleet.gate.breaker.now_open()
    assert (alert.cohort, fleet.gate.known(NAMES[0]).software) == (str(BEFORE), "2026.45.0")


def test_a_forger_in_a_held_cohort_goes_into_quarantine(fleet: Fleet) -> None:
    """Its signal is not the release's."""
    for name in NAMES[1:]:
        fleet.send(name, BAD, MISTAKES)
    fleet.send(NAMES[0], BODY, 3, key=bytes(32))
    assert fleet.states()[0] == "quarantined"


ALSO_UPDATED = pytest.mark.parametrize("updated", [False, True], ids=["same version", "another version named"])


@ALSO_UPDATED
@pytest.mark.parametrize("saved", [False, True], ids=["from the spool", "from the checkpoint"])
def test_a_kill_ends_no_hold(fleet: Fleet, saved: bool, updated: bool) -> None:
    """The alert and the devices it is about come back from wherever they are."""
    for name in NAMES[:-1]:
        fleet.mistake(name, updated=updated)
    if saved:
        fleet.gate.spool.checkpoint.keep_alerts(fleet.gate.breaker.now_open())
        fleet.gate.checkpoint()
    before = fleet.gate.breaker.now_open()
    fleet.kill_and_recover()
    assert fleet.gate.breaker.now_open() == before
    fleet.send(NAMES[-1], BAD, MISTAKES)
    assert fleet.states()[-1] == "watched"
    for minute in range(60):
        fleet.gate.scores.relax(fleet.gate.clock.ms + minute * 60_000)
    assert fleet.gate.breaker.now_open() == before, "silent devices whose score is high are not forgotten"
    for name in NAMES[19:-1]:
        fleet.send(name, UPDATED)
        fleet.send(name, BAD)
    assert fleet.states() == ["quarantined"] * 19 + ["watched"] * 41


def test_a_persons_word_takes_effect_on_those_that_are_held(fleet: Fleet) -> None:
    """Off: they go where they belong, now and not with their next mistake."""
    for name in NAMES:
        fleet.send(name, BAD, MISTAKES)
    fleet.gate.breaker.override({BEFORE: Mode.OFF})
    with capture_logs() as logged:
        fleet.gate.scores.relax(fleet.gate.clock.ms)
    assert set(fleet.states()) == {"quarantined"}
    why = [line["why"] for line in logged if line["event"] == "device_state"]
    assert why == ["malformed_body"] * 41, "the reason of a case is what the device did"


@ALSO_UPDATED
@pytest.mark.parametrize(("word", "state"), [(Mode.OFF, "quarantined"), (Mode.HOLD, "watched"), (Mode.AUTO, "watched")])
def test_who_was_held_and_away_goes_where_it_belongs_when_it_is_back(
    fleet: Fleet, word: Mode, state: str, updated: bool
) -> None:
    """The edge had forgotten it when somebody said so, and it makes no mistake afterwards."""
    for name in NAMES:
        fleet.mistake(name, updated=updated)
    fleet.gate.checkpoint()
    fleet.gate.fleet.forget_idle(math.inf)
    assert len(fleet.gate.fleet) == 0
    fleet.gate.breaker.override({BEFORE: word} if word is not Mode.AUTO else {})
    fleet.gate.scores.relax(fleet.gate.clock.ms)
    assert fleet.states() == ["quarantined"] * 19 + [state] * 41


def test_nobody_is_excused_for_a_version_that_it_named_in_its_trouble_and_went_idle(fleet: Fleet) -> None:
    """A held release is no refuge for whoever claims to have it, and leaves memory."""
    for name in NAMES[1:]:
        fleet.mistake(name, updated=False)
    fleet.gate.breaker.sizes = {}  # nothing that comes now is a surge by itself
    stranger = fleet.gate.known(NAMES[0])
    stranger.software = "2026.43.2"
    fleet.send(NAMES[0], BAD)
    fleet.send(NAMES[0], BODY)
    fleet.gate.checkpoint()
    fleet.gate.fleet.forget_idle(math.inf)
    fleet.send(NAMES[0], BAD, MISTAKES - 1)
    assert fleet.states()[0] == "quarantined"


def test_a_hold_that_is_taken_back_holds_no_more(fleet: Fleet) -> None:
    """Whoever a person alone kept out of quarantine goes there."""
    fleet.gate.breaker.override({BEFORE: Mode.HOLD})
    fleet.send(NAMES[0], BAD, MISTAKES)
    held = fleet.states()[0]
    fleet.gate.breaker.override({})
    fleet.gate.scores.relax(fleet.gate.clock.ms)
    assert (held, fleet.states()[0]) == ("watched", "quarantined")


def test_a_held_device_is_trusted_again_when_it_has_behaved(fleet: Fleet) -> None:
    """As any watched one."""
    for name in NAMES:
        fleet.send(name, BAD, MISTAKES)
    fleet.gate.clock.ms = NOW + 24 * HOUR_MS
    fleet.gate.scores.relax(fleet.gate.clock.ms)
    assert fleet.gate.known(NAMES[-1]).standing.state is DeviceState.TRUSTED


def test_the_census_counts_whom_it_saw_in_the_last_day(fleet: Fleet) -> None:
    """By the checkpoint; also those that are not in memory."""
    assert fleet.gate.breaker.sizes == dict.fromkeys(cohorts_of(fleet.gate.known(NAMES[0])), FLEET)
    fleet.gate.clock.ms = NOW + 25 * HOUR_MS
    fleet.send(NAMES[0], BODY)
    fleet.gate.checkpoint()
    fleet.count()
    assert set(fleet.gate.breaker.sizes.values()) == {1}
