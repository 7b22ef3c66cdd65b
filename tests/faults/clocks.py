"""The clock of the gate's machine is stepped by an hour: while edge and load run, and while they are down.

Only the gate's clock: the cars keep good time. While it is wrong an edge may refuse honest messages as `clock_ahead`,
or close its doors; what it acknowledges is stored once all the same.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetgate.spool.files import checkpoint_position
from fleetgate.spool.reader import segment_paths
from tests.faults.oracle import Excuse
from tests.faults.registry import fault
from tests.faults.trial import Trial
from tests.gate import now_ms, until

HERE = Path(__file__).parent / "clock"
HOUR_S = 3600
EVER = (0, 2**63)
NOTICED_SECONDS = 20.0


class GateClock:
    """The wall clock of edge and load, once they were started by `start`."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._file = trial.directory / "clock-shift"
        self._file.write_bytes(bytes(8))

    def set(self, shift_s: int) -> None:
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", shift_s * 10**9))

    def start(self, *, kill: bool) -> None:
        """Ends edge and load and starts them by this clock."""
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        processes = (self._trial.edge, self._trial.load)
        for one in processes:
            one.kill() if kill else one.terminate()
        for one in processes:
            one.launch(CLOCK_FILE=str(self._file), PYTHONPATH=path)
        for one in processes:
            one.await_ready()

    @contextmanager
    def wrong(self, shift_s: int) -> Iterator[None]:
        """Behind the clock of the cars, honest messages are from the future, until the edge has noticed or was
        started again with a good one."""
        since_ms = now_ms()
        try:
            yield
        finally:
            if shift_s < 0:
                self._trial.excuses.append(Excuse("clock_ahead", (since_ms, now_ms()), EVER))


def _doubted(trial: Trial) -> None:
    until(lambda: "clock jumped" in trial.edge.admin("/readyz")[1], "the edge doubts its clock", NOTICED_SECONDS)


def _trusted(trial: Trial) -> None:
    until(lambda: trial.edge.admin("/readyz")[0] == 200, "the edge trusts its clock", NOTICED_SECONDS)


def _sealed(trial: Trial) -> None:
    """Segments and checkpoints do not wait for the clock."""
    segments, before = trial.spool / "segments", checkpoint_position(trial.spool) or 0
    until(lambda: not segment_paths(segments, ".open"), "what was received is sealed", NOTICED_SECONDS)
    last = max((number for number, _ in segment_paths(segments)), default=before)
    until(lambda: (checkpoint_position(trial.spool) or 0) >= last, "and in the checkpoint", NOTICED_SECONDS)


@fault("The clock is stepped by an hour, forth and back, while edge and load run: the doors close until it is right.")
def clock_stepped_while_running(trial: Trial) -> None:
    trial.fleet.be_plain()
    clock = GateClock(trial)
    clock.start(kill=False)
    trial.fleet.fresh()
    for shift_s in (HOUR_S, -HOUR_S):
        with clock.wrong(shift_s):
            clock.set(shift_s)
            _doubted(trial)
            _sealed(trial)
            trial.pass_time(0.5, 1.5)
            clock.set(0)
            _trusted(trial)
        trial.fleet.fresh()


@fault("Edge and load are killed and start with a clock that is an hour off; it is set right, and they start again.")
def clock_stepped_across_a_restart(trial: Trial) -> None:
    trial.fleet.be_plain()
    clock = GateClock(trial)
    for shift_s in (HOUR_S, -HOUR_S):
        with clock.wrong(shift_s):
            clock.set(shift_s)
            clock.start(kill=True)
            if shift_s > 0:
                trial.fleet.fresh()  # only late, to this gate
                trial.await_progress()
            else:
                _refused(trial)
            clock.set(0)
            _doubted(trial)
            _sealed(trial)
            clock.start(kill=True)
        trial.fleet.fresh()


def _refused(trial: Trial) -> None:
    sample = 'fleetgate_rejections_total{reason="clock_ahead",step="4",transport="mqtt"}'
    until(lambda: trial.edge.metric(sample) > 10, "honest messages are from the future", NOTICED_SECONDS)
    time.sleep(1)
