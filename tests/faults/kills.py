"""kill -9 at moments nobody chose, processes that stand still, and edges that come and go."""

from __future__ import annotations

import time

from tests.faults.processes import Running, restart, stopped
from tests.faults.registry import add, fault
from tests.faults.trial import Fault, Trial
from tests.gate import fleetgate


def _kill(trial: Trial, *victims: Running) -> None:
    """Several times, so that one seed meets several moments."""
    for _ in range(3):
        trial.pass_time(0.4, 1.6)
        for victim in victims:
            victim.kill()
        for victim in victims:
            victim.launch()
        for victim in victims:
            victim.await_ready()


@fault("kill -9 of the edge, three times, at random moments under load.")
def kill_edge(trial: Trial) -> None:
    _kill(trial, trial.edge)


@fault("kill -9 of load, three times, at random moments of its inserts.")
def kill_load(trial: Trial) -> None:
    _kill(trial, trial.load)


@fault("kill -9 of load together with the embedded ClickHouse that it owns, three times.", embedded=True)
def kill_load_embedded(trial: Trial) -> None:
    _kill(trial, trial.load)


@fault("kill -9 of edge and load at once, three times.", embedded=True)
def kill_both(trial: Trial) -> None:
    _kill(trial, trial.edge, trial.load)


@fault("The edge is killed again and again while it recovers: each start is a normal one.")
def kill_recovering_edge(trial: Trial) -> None:
    trial.edge.kill()
    for _ in range(5):
        trial.edge.launch()
        trial.pass_time(0.2, 1.5)
        trial.edge.kill()
    restart(trial.edge)


def _stand_still(seconds: float, of_load: bool) -> Fault:
    name, who = ("load", "load") if of_load else ("edge", "the edge")

    def strike(trial: Trial) -> None:
        with stopped(trial.load if of_load else trial.edge):
            time.sleep(seconds)

    what = f"SIGSTOP of {who} for {seconds:.0f} s: its sockets stay open and nobody answers."
    return Fault(f"stop_{name}_{seconds:.0f}s", what, strike, quick=seconds <= 5 and not of_load)


for _seconds in (5.0, 30.0):  # a car takes a connection for dead after 3
    add(_stand_still(_seconds, of_load=False))
add(_stand_still(30.0, of_load=True))


@fault("A second edge is started on a spool that has one: it ends with 5 and the first goes on.")
def two_edges(trial: Trial) -> None:
    for _ in range(3):
        second = fleetgate(trial.directory, "edge")
        assert (second.returncode, "another edge holds" in second.stderr) == (5, True), second.stderr
        trial.pass_time(0.1, 0.5)
