"""The spool's disk is replaced while the edge is down: by an empty one, or by an older copy of itself.

What was loaded stays single, and what comes after is neither dropped nor doubled. The windows of the old disk are gone,
so messages signed before the fence may be refused as `too_old`, known or not.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from fleetgate.spool.files import parked_for
from fleetgate.spool.format import DamagedError
from fleetgate.spool.identity import read_identity
from fleetgate.spool.reader import read_segment, segment_paths
from tests.faults.oracle import Excuse
from tests.faults.processes import restart, stopped
from tests.faults.registry import fault
from tests.faults.trial import LOADED_SECONDS, Trial
from tests.gate import fleetgate, now_ms, until
from tests.spools import alter_identity

FENCE_SECONDS = 75.0
TOLD_SECONDS = 2.5  # load tells control how far it is once a second
SNAPSHOTS = 40
SHORT_FENCE_MS = 8_000  # an edge takes seconds to start where others are busy


def _drained(trial: Trial) -> None:
    """The edge is down, and all that it received is loaded: with the disk nothing is lost."""
    status = trial.edge.terminate()
    assert status == 0, f"the edge ended with {status}"
    trial.await_loaded()
    time.sleep(TOLD_SECONDS)


def _note_identity(trial: Trial) -> int:
    """The spool's identity joins those of the trial; its fence."""
    identity = read_identity(trial.spool)
    assert identity is not None
    trial.spools.append(identity.spool)
    return identity.fence_ms


def _behind_the_fence(trial: Trial) -> None:
    """Waits for it. What was signed before it may be refused, also what was acknowledged by the lost disk."""
    fence_ms = _note_identity(trial)
    assert fence_ms, "there is no fence"
    trial.excuses.append(Excuse("too_old", (0, 2**63), (0, fence_ms), forgotten=True))
    status, _ = trial.edge.admin("/readyz")
    assert status == 503 or now_ms() > fence_ms, "it takes messages before the fence"
    until(lambda: trial.edge.admin("/readyz")[0] == 200, "the fence is passed", FENCE_SECONDS)


def _shorten_fence(trial: Trial) -> None:
    """The cars keep good time: for them one of seconds is as good as that of a minute. Before the edge starts."""
    was = alter_identity(trial.spool, fence_ms=now_ms() + SHORT_FENCE_MS)
    assert 0 < was.fence_ms - now_ms() <= 60_000, "there is no fence"


def _go_on(trial: Trial, *, with_load: bool) -> None:
    """With the edge started; load ran all the while, or is started now."""
    if not with_load:
        restart(trial.load)
    _behind_the_fence(trial)
    trial.fleet.fresh()
    trial.await_progress()


def _empty(trial: Trial, *, with_load: bool, minute: bool) -> None:
    trial.fleet.be_plain()
    _note_identity(trial)
    _drained(trial)
    if not with_load:
        assert trial.load.terminate() == 0
    trial.spool.rename(trial.directory / f"lost-{len(trial.spools)}")
    restart(trial.edge)
    if not minute:
        trial.edge.kill()
        _shorten_fence(trial)
        restart(trial.edge)
    _go_on(trial, with_load=with_load)


@fault("The spool's disk is replaced by an empty one, with edge and load down: the edge waits a minute behind a fence.")
def disk_empty(trial: Trial) -> None:
    _empty(trial, with_load=False, minute=True)


@fault("The spool's disk is replaced by an empty one under the running load, twice.")
def disk_empty_under_load(trial: Trial) -> None:
    for _ in range(2):
        _empty(trial, with_load=True, minute=False)


def _older_copy(trial: Trial, *, with_load: bool) -> None:
    """A copy as a snapshot takes it, of a running edge; then much is received and loaded; then the copy comes back."""
    trial.fleet.be_plain()
    _note_identity(trial)
    copy = trial.directory / f"copy-{len(trial.spools)}"
    number = _snapshot(trial, copy)
    trial.fleet.fresh()
    trial.await_progress()
    _drained(trial)
    if not with_load:
        assert trial.load.terminate() == 0
    trial.spool.rename(trial.directory / "lost")
    copy.rename(trial.spool)
    refused = fleetgate(trial.directory, "edge")
    assert (refused.returncode, "is an older copy" in refused.stderr) == (5, True), refused.stderr
    repaired = fleetgate(trial.directory, "spool", "repair", "--restored", "--yes")
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    _shorten_fence(trial)
    restart(trial.edge)
    _go_on(trial, with_load=with_load)
    # What was live in the copy is shorter than what was loaded of it: it stays aside, and nothing of it is missing.
    until(lambda: segment_paths(trial.spool / "parked"), "it is set aside", LOADED_SECONDS)
    [(parked, path)] = segment_paths(trial.spool / "parked")
    assert (parked, parked_for(path).why) == (number, "changed"), parked_for(path)
    told = fleetgate(trial.directory, "spool", "retry").stdout
    assert f"{number} is changed and stays" in told, told


def _snapshot(trial: Trial, copy: Path) -> int:
    """Copies the spool between two instructions of edge and load, at a moment when the live segment has messages, and
    will have more; its number."""
    for _ in range(SNAPSHOTS):
        with stopped(trial.load), stopped(trial.edge):
            shutil.copytree(trial.spool, copy)
        for number, live in segment_paths(copy / "segments", ".open"):
            sealed = trial.spool / "segments" / f"{number:020d}.seg"
            until(lambda: trial.loaded_segment() >= number or sealed.exists(), "the segment is sealed")  # noqa: B023
            with contextlib.suppress(DamagedError, FileNotFoundError):
                if 0 < len(read_segment(live).messages) < len(read_segment(sealed).messages):
                    return number
        shutil.rmtree(copy)
        trial.pass_time(0.0, 0.5)
    raise AssertionError("no copy has a live segment that went on")


@fault("The spool's disk is replaced by an older copy, with edge and load down: it is refused until it is repaired.")
def disk_older_copy(trial: Trial) -> None:
    _older_copy(trial, with_load=False)


@fault("The same under the running load, which is offered segments again, one of them shorter than it was loaded.")
def disk_older_copy_under_load(trial: Trial) -> None:
    _older_copy(trial, with_load=True)
