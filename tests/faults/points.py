"""kill -9 at every numbered point of the road (`fleetgate.fault`): each is a fault of its own.

The process is started with the point armed, gets there under load at a pass that the seed chooses, ends, and is started
again. A trial in which the point was never reached fails.
"""

from __future__ import annotations

from collections.abc import Callable

from fleetgate.control.signing import REQUEST_SECONDS
from fleetgate.fault import EDGE_POINTS, LOAD_POINTS, SIGNER_POINTS, VARIABLE
from fleetgate.load.ending import LAST_SECONDS
from tests.faults import releases
from tests.faults.drains import drained
from tests.faults.processes import REACHED_SECONDS, Running, ended_by_kill, restart
from tests.faults.registry import add
from tests.faults.rot import damage_one
from tests.faults.trial import Fault, Trial

RECOVERED_SECONDS = 10.0  # from launch; after that the edge serves, and recovers nothing any more
STARTS = 4
"""Tries for a point of recovery: a start may find nothing left open."""

PASSES = {"append": 80, "commit": 80, "ack": 160, "open": 4, "seal": 4, "checkpoint": 2, "delete": 2, "recover": 1}
"""The pass at which the process ends is drawn up to this, by what is done how often; those of load up to 4."""

STRIKES = {"append": 4, "commit": 4, "ack": 4}
"""How often, by how much chance there is in what a batch holds: an answer that went out too early is only seen where
it was one over MQTT, or one over HTTPS. Twice for all others, but once for those that must be quick."""

QUICK = ("insert.events",)


def _at(point: str, victim_of: Callable[[Trial], Running]) -> Callable[[Trial], None]:
    kind = point.partition(".")[0]

    def strike(trial: Trial) -> None:
        victim = victim_of(trial)
        for _ in range(1 if point in QUICK else STRIKES.get(kind, 2)):
            _once(trial, victim, point, trial.rng.randint(1, PASSES.get(kind, 4)))
        restart(victim)

    return strike


def _once(trial: Trial, victim: Running, point: str, passes: int) -> None:
    at_start = point.startswith("recover.")
    for _ in range(STARTS):
        if at_start and victim.process.poll() is not None:
            restart(victim)  # so that there is something open for the next start to recover
            trial.pass_time(0.3, 0.8)
        if victim.process.poll() is None:
            victim.kill()
        victim.launch(**{VARIABLE: f"{point},{passes}"})
        if ended_by_kill(victim, RECOVERED_SECONDS if at_start else REACHED_SECONDS):
            return
    raise AssertionError(f"{point} was never reached")


def _at_parking(point: str) -> Callable[[Trial], None]:
    """A segment that has to be set aside, in load's way."""

    def strike(trial: Trial) -> None:
        for _ in range(2):
            trial.load.kill()
            damage_one(trial)
            trial.load.launch(**{VARIABLE: point})
            assert ended_by_kill(trial.load, REACHED_SECONDS), f"{point} was never reached"
        restart(trial.load)

    return strike


def _at_signing(point: str) -> Callable[[Trial], None]:
    """Load asks the signer once a minute and when it ends, so it is ended: it takes no harm from a signer that goes."""

    def strike(trial: Trial) -> None:
        for _ in range(2):
            drained(trial.signer, REQUEST_SECONDS)
            trial.signer.launch(**{VARIABLE: point})
            trial.signer.await_ready()
            trial.await_progress()
            drained(trial.load, LAST_SECONDS)
            assert ended_by_kill(trial.signer, REACHED_SECONDS), f"{point} was never reached"
            restart(trial.signer)
            restart(trial.load)

    return strike


def _at_release(point: str) -> Callable[[Trial], None]:
    """A car is let out of quarantine while load is armed: twice, as there are segments left to release."""

    def strike(trial: Trial) -> None:
        releases.in_quarantine(trial)
        trial.load.kill()
        trial.load.launch(**{VARIABLE: f"{point},{trial.rng.randint(1, 3) if point == 'release.copied' else 1}"})
        releases.let_out(trial)
        assert ended_by_kill(trial.load, REACHED_SECONDS), f"{point} was never reached"
        trial.load.launch(**{VARIABLE: point})
        releases.accepted_again(trial)
        if point == "release.noted":  # behind which nothing may be left
            trial.load.kill()
        else:
            assert ended_by_kill(trial.load, REACHED_SECONDS), f"{point} was never reached again"
        restart(trial.load)
        releases.moved(trial)

    return strike


def _add() -> None:
    number = 0
    for who, points in (("edge", EDGE_POINTS), ("load", LOAD_POINTS), ("the signer", SIGNER_POINTS)):
        for point, what in points.items():
            number += 1
            name = f"point_{number:02d}_{point.replace('.', '_')}"
            told = f"Point {number}, `{point}` of {who}: {what}."
            add(Fault(name, told, _strike(who, point), quick=point in QUICK))


def _strike(who: str, point: str) -> Callable[[Trial], None]:
    if who == "the signer":
        return _at_signing(point)
    if point.startswith("release."):
        return _at_release(point)
    if point.startswith("park."):
        return _at_parking(point)
    return _at(point, _edge if who == "edge" else _load)


def _edge(trial: Trial) -> Running:
    return trial.edge


def _load(trial: Trial) -> Running:
    return trial.load


_add()
