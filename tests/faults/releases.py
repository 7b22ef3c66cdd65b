"""A person lets a car out of quarantine, and what was held is moved, whatever breaks meanwhile.

The suspect sends properly from shortly before the decision until its messages are accepted again: so the oracle can
tell from the order of the messages alone which were held for which quarantine.
"""

from __future__ import annotations

import time

from fleetgate.clock import SystemClock
from fleetgate.control.cases import list_cases
from fleetgate.control.releases import releases_of
from fleetgate.control.states import Classification
from fleetgate.control.store import Store
from fleetgate.load.release import count_of
from fleetgate.spool.reader import segment_paths
from tests.faults.fleet import ENOUGH_REFUSED, FRESH_MESSAGES, PLAIN_SECONDS
from tests.faults.oracle import Release
from tests.faults.outages import behaving, ours, struck
from tests.faults.processes import restart
from tests.faults.proxy import Forward, Reply, Request
from tests.faults.registry import fault
from tests.faults.trial import LOADED_SECONDS, Trial
from tests.gate import until

LEARNED_SECONDS = 2.0  # an edge learns of a decision within one
HELD_SECONDS = (1.5, 2.5)
"""Some segments of held messages, of 0.3 s each."""

_COPIES = "SELECT 1 FROM events WHERE decision != '' LIMIT 1"


def _releases(request: Request) -> bool:
    """Whether it copies held events."""
    return request.insert == "events" and b"FROM held_events" in request.body


def in_quarantine(trial: Trial, refused: int = ENOUGH_REFUSED) -> None:
    """The suspect has messages held, its case waits for a person, and it sends nothing but such from now on."""
    trial.fleet.held_back(refused)
    with Store.open(trial.home.config, SystemClock()) as store:
        until(lambda: bool(list_cases(store)), "control knows of the quarantine", LOADED_SECONDS)
    trial.pass_time(*HELD_SECONDS)
    trial.fleet.suspect.proper = True
    time.sleep(PLAIN_SECONDS)


def let_out(trial: Trial, found: Classification = Classification.BENIGN) -> None:
    car = trial.fleet.suspect.car
    whom = ("--tenant", car.tenant, "--device", car.device_id)
    trial.home.command("quarantine", "release", *whom, "--classification", found, "--reason", "a test")
    trial.releases.append(Release(car.tenant, car.device_id, found is not Classification.CONFIRMED))


def accepted_again(trial: Trial) -> None:
    suspect = trial.fleet.suspect
    time.sleep(LEARNED_SECONDS)
    suspect.mark()
    until(lambda: suspect.fresh >= FRESH_MESSAGES, "the suspect's messages are accepted", LOADED_SECONDS)
    suspect.proper = False


def moved(trial: Trial) -> None:
    """Waits until all that people released so far is moved. What the suspect has held after that is of its next
    quarantine, and stays."""
    newest = max((number for number, _ in segment_paths(trial.spool / "segments", ".open")), default=0)
    trial.await_load(lambda: trial.loaded_segment() >= newest, "what came until now is loaded")
    who = {(release.tenant, release.device_id) for release in trial.releases}
    clickhouse = trial.clickhouse()
    with Store.open(trial.home.config, SystemClock()) as store:

        def left() -> int:
            counts = [count_of(clickhouse, release) for one in who for release in releases_of(store, *one)]
            return sum(held - done for held, done in counts)

        until(lambda: not left(), "what was held is released", LOADED_SECONDS)
    clickhouse.close()


@fault("A car is let out of quarantine: what was held is released, once, and what a second quarantine holds is not.")
def released_and_held_again(trial: Trial) -> None:
    in_quarantine(trial)
    let_out(trial)
    accepted_again(trial)
    moved(trial)
    trial.fleet.held_back(trial.fleet.suspect.refused + ENOUGH_REFUSED)


@fault("A car is let out and its case is confirmed: what was held stays held, though it is released the next time.")
def released_as_confirmed(trial: Trial) -> None:
    for found in (Classification.CONFIRMED, Classification.FALSE_POSITIVE):
        in_quarantine(trial, trial.fleet.suspect.refused + ENOUGH_REFUSED)
        let_out(trial, found)
        accepted_again(trial)
    moved(trial)


@fault("ClickHouse refuses connections when a car is let out, and load is killed while it waits.")
def released_while_clickhouse_is_away(trial: Trial) -> None:
    in_quarantine(trial)
    trial.proxy.refuse()
    let_out(trial)
    accepted_again(trial)
    trial.load.kill()
    trial.load.launch()
    trial.pass_time(0.5, 1.5)
    trial.proxy.listen_again()
    trial.load.await_ready()
    moved(trial)


@fault("The answers to statements that release are lost, three times: ClickHouse did each of them.")
def released_without_an_answer(trial: Trial) -> None:
    lost: list[str] = []

    def lose(request: Request, forward: Forward) -> Reply | None:
        if not (_releases(request) or request.insert == "releases") or len(lost) >= 3:
            return forward()
        forward()
        lost.append(request.insert)
        trial.proxy.strike()
        return None

    in_quarantine(trial)
    with behaving(trial, lose):
        let_out(trial)
        accepted_again(trial)
        struck(trial, 3)
        moved(trial)


@fault("kill -9 of load, with the embedded ClickHouse that it owns, three times while it releases.", embedded=True)
def released_by_a_killed_load(trial: Trial) -> None:
    in_quarantine(trial)
    let_out(trial)
    for _ in range(3):
        trial.pass_time(0.1, 1.5)
        trial.load.kill()
        restart(trial.load)
    accepted_again(trial)
    moved(trial)


@fault("kill -9 of the ClickHouse server while held events are released: rows in `events`, none in `signal_minute`.")
def released_into_a_killed_clickhouse(trial: Trial) -> None:
    server, clickhouse = ours(trial), trial.clickhouse()

    def dawdle(request: Request, forward: Forward) -> Reply | None:
        """A view's target that takes its time from this statement on: the table's part is committed by then."""
        if _releases(request) and not trial.proxy.struck:
            trial.proxy.strike()
            clickhouse.command("ALTER TABLE signal_minute ADD CONSTRAINT pause CHECK sleepEachRow(0.1) = 0")
        return forward()

    in_quarantine(trial)
    with behaving(trial, dawdle):
        let_out(trial)
        until(lambda: bool(clickhouse.rows(_COPIES)), "held events are copied", LOADED_SECONDS)
        server.kill()
        restart(server)
    clickhouse.command("ALTER TABLE signal_minute DROP CONSTRAINT pause")
    accepted_again(trial)
    moved(trial)
