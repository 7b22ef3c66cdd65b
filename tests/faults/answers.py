"""Answers that go out too early: the power goes again and again while one transport alone is sending.

Among nine cars an answer that did not wait for its commit is easily hidden: the next turn of the other transport
commits it a millisecond later. So here the others pause, commits come late, and the power goes at the very moment when
a batch is written and not synced, or not even written: whatever was answered of it is lost, and the oracle sees it.
"""

from __future__ import annotations

from fleetgate.fault import VARIABLE
from tests.faults.power_cuts import Disk
from tests.faults.processes import REACHED_SECONDS, ended_by_kill
from tests.faults.registry import add
from tests.faults.trial import Fault, Trial

STRIKES = ("commit.written", "append.claimed", "commit.written", "append.claimed")
PASSES = 12
LATE_SECONDS = 0.03  # ten times what an answer over HTTPS takes


def _alone(transport: str) -> Fault:
    def strike(trial: Trial) -> None:
        disk = Disk(trial)
        with trial.fleet.alone(transport):
            trial.edge.kill()
            for point in STRIKES:
                passes = trial.rng.randint(2, PASSES)
                disk.launch_edge(**{VARIABLE: f"{point},{passes}", "LATE_COMMITS_SECONDS": str(LATE_SECONDS)})
                assert ended_by_kill(trial.edge, REACHED_SECONDS), f"{point} was never reached"
                disk.cut()
        assert disk.taken_bytes, "nothing was lost: no power was cut"
        disk.launch_edge()
        trial.edge.await_ready()

    name = transport.upper()
    what = f"Only {name} is sending, commits come late, and the power goes before each is synced: no answer was early."
    return Fault(f"power_cut_of_{transport}_alone", what, strike)


for _transport in ("https", "mqtt"):
    add(_alone(_transport))
