"""SIGTERM under load, and upgrades in place: the old process ends as it should, the new one goes on with its spool."""

from __future__ import annotations

import time

from fleetgate.load.ending import LAST_SECONDS
from fleetgate.spool.reader import segment_paths
from tests.faults.outages import behaving, hanging, struck
from tests.faults.processes import Running, restart
from tests.faults.registry import fault
from tests.faults.trial import Trial

MARGIN_SECONDS = 5.0


def drained(one: Running, seconds: float) -> None:
    """SIGTERM; it ends with 0 within its deadline."""
    started_s = time.monotonic()
    status = one.terminate()
    took_s = time.monotonic() - started_s
    assert (status, took_s < seconds + MARGIN_SECONDS) == (0, True), f"status {status} after {took_s:.1f} s"


@fault("An upgrade in place, twice: the edge drains, then load, and new ones start on the same spool.", quick=True)
def upgrade(trial: Trial) -> None:
    for _ in range(2):
        drained(trial.edge, trial.home.config.edge.drain_seconds)
        assert not segment_paths(trial.spool / "segments", ".open"), "a drained edge leaves nothing unsealed"
        drained(trial.load, LAST_SECONDS)
        trial.edge.launch()
        trial.load.launch()
        trial.edge.await_ready()
        trial.load.await_ready()
        trial.pass_time(0.3, 1.0)


@fault("Edge and load drain while ClickHouse is away; what is in the spool waits for the next start.")
def drain_while_clickhouse_is_away(trial: Trial) -> None:
    trial.proxy.refuse()
    trial.pass_time(0.5, 1.5)
    drained(trial.edge, trial.home.config.edge.drain_seconds)
    drained(trial.load, LAST_SECONDS)
    trial.proxy.listen_again()
    trial.edge.launch()
    trial.load.launch()
    trial.edge.await_ready()
    trial.load.await_ready()


@fault("SIGTERM of load while an insert hangs: it gives the insert up and ends with 0; the next start repeats it.")
def drain_load_while_clickhouse_hangs(trial: Trial) -> None:
    with behaving(trial, hanging(trial, after_commit=True)):
        struck(trial)
        drained(trial.load, LAST_SECONDS)
    restart(trial.load)
