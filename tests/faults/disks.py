"""The disk fails: it is full, or does not sync what it took. The edge ends, and the next start goes on.

The full disk is a real one: a small file system of its own under the spool, which takes root, filled to the last byte
at the moment that a fault point names (`disk/sitecustomize.py`). The failing sync is one call of fdatasync that the
process is told to have failed (`power/sitecustomize.py`); what it did not write is gone at once, or with the power. A
disk that is full only when it is synced, as one that allocates late or lies on a network, looks to the gate just so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.power_cuts import Disk
from tests.faults.processes import Running, restart, stopped
from tests.faults.registry import fault
from tests.faults.trial import Trial
from tests.gate import until

SHIM = Path(__file__).parent / "disk"
DISK_BYTES = 24 * 1024 * 1024
ENDED_SECONDS = 40.0
SPOOL_ERROR = 5
FULL = ("No space left on device", "database or disk is full", "disk I/O error")
FLOOR_BYTES = 6 * 1024 * 1024


@contextmanager
def small_disk(trial: Trial) -> Iterator[Path]:
    """The spool on a file system of its own, as long as the block lasts; the path of the file that fills it. Edge and
    load are stopped when it begins, and started on the old disk again behind it."""
    if os.geteuid() != 0:
        trial.skip("to mount a small file system takes root")
    trial.edge.kill()
    trial.load.kill()
    spool, before = trial.spool, trial.directory / "spool.before"
    spool.rename(before)
    spool.mkdir(mode=0o750)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=750", "fleetgate-fault", str(spool)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        trial.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        shutil.copytree(before, spool, dirs_exist_ok=True)
        yield spool / "ballast"
        trial.edge.kill()
        trial.load.kill()
        after = trial.directory / "spool.after"
        shutil.copytree(spool, after)
    finally:
        trial.edge.close()
        trial.load.close()
        subprocess.run(["umount", "--lazy", str(spool)], check=True)
    spool.rmdir()
    after.rename(spool)
    trial.edge.launch()
    trial.load.launch()
    trial.edge.await_ready()
    trial.load.await_ready()


def fill_at(one: Running, point: str, passes: int, ballast: Path) -> None:
    """Starts a process that fills the disk when it gets to this fault point."""
    one.launch(PYTHONPATH=str(SHIM), FILL_DISK=f"{point},{passes},{ballast}")


def words_at_end(trial: Trial, since: int) -> str:
    """Waits for the edge to end with the status of a spool's error; what it wrote behind byte `since` of its log."""
    deadline_s = time.monotonic() + ENDED_SECONDS
    while trial.edge.process.poll() is None:
        assert time.monotonic() < deadline_s, "the edge went on, on a disk that failed"
        time.sleep(0.02)
    words = trial.edge.log_file.read_bytes()[since:].decode()
    assert trial.edge.process.returncode == SPOOL_ERROR, f"it ended with {trial.edge.process.returncode}: {words}"
    return words


def _log_bytes(trial: Trial) -> int:
    return trial.edge.log_file.stat().st_size


def _full(trial: Trial, ballast: Path, point: str, passes: int) -> str:
    """The disk becomes full, the edge ends; started without more space it ends again; with space it goes on. What it
    said when it ended first."""
    since = _log_bytes(trial)
    fill_at(trial.edge, point, passes, ballast)
    words = words_at_end(trial, since)
    assert any(told in words for told in FULL), words
    assert ballast.exists(), "the disk never was full"
    since = _log_bytes(trial)
    trial.edge.launch()
    again = words_at_end(trial, since)
    assert any(told in again for told in FULL), again
    ballast.unlink()
    restart(trial.edge)
    trial.fleet.fresh()
    trial.edge.kill()
    return words


@fault(
    "The disk is full while messages are appended: the edge ends, on a full disk again, and goes on when it has space."
)
def disk_full_while_appending(trial: Trial) -> None:
    with small_disk(trial) as ballast:
        restart(trial.load)
        for _ in range(2):
            words = _full(trial, ballast, "append.claimed", trial.rng.randint(2, 60))
            assert "cannot write" in words, words


@fault(
    "The disk is full while a segment is sealed: before its footer, before its new name, before the next one's header."
)
def disk_full_while_sealing(trial: Trial) -> None:
    with small_disk(trial) as ballast:
        restart(trial.load)
        for point in ("seal.begun", "seal.footer", "open.created"):
            _full(trial, ballast, point, trial.rng.randint(1, 4))


@fault("The disk is full while a checkpoint is written, under load: before its devices, and before its position.")
def disk_full_while_checkpointing(trial: Trial) -> None:
    with small_disk(trial) as ballast:
        restart(trial.load)
        for point in ("checkpoint.begun", "checkpoint.saved"):
            _full(trial, ballast, point, 1)


@fault(
    "The disk is full while the last checkpoint of a drain is written, by SQLite, and nothing else is any more.",
    spool={"checkpoint_seconds": 600.0},
)
def disk_full_at_the_last_checkpoint(trial: Trial) -> None:
    with small_disk(trial) as ballast:
        restart(trial.load)
        for point in ("checkpoint.begun", "checkpoint.saved"):
            since = _log_bytes(trial)
            fill_at(trial.edge, point, 1, ballast)
            trial.edge.await_ready()
            trial.fleet.fresh()
            trial.edge.process.terminate()
            words = words_at_end(trial, since)
            assert "checkpoint.db: database or disk is full; the edge stops" in words, words
            ballast.unlink()
        restart(trial.edge)


@fault("The disk is full while load writes its cursor: load waits for space, and goes on without a start.")
def disk_full_while_the_cursor_is_written(trial: Trial) -> None:
    with small_disk(trial) as ballast:
        restart(trial.edge)
        since, edge_since = trial.load.log_file.stat().st_size, _log_bytes(trial)
        fill_at(trial.load, "insert.segments", trial.rng.randint(1, 3), ballast)
        until(lambda: "cannot write" in trial.load.log_since(since), "load misses space", ENDED_SECONDS)
        assert "cursor.json: No space left on device" in trial.load.log_since(since)
        words_at_end(trial, edge_since)
        ballast.unlink()
        restart(trial.edge)
        trial.await_progress()
        assert trial.load.process.poll() is None, "load ended"


@fault(
    "Others fill the spool's disk to below its floor: nothing more is taken, the edge stays, and goes on when there is "
    "space; no write ever meets the end of the disk.",
    spool={"min_free_bytes": FLOOR_BYTES},
)
def disk_below_its_floor(trial: Trial) -> None:
    with small_disk(trial) as ballast:
        restart(trial.load)
        restart(trial.edge)
        for _ in range(2):
            status = os.statvfs(trial.spool)
            with ballast.open("wb") as file:
                free = status.f_bavail * status.f_frsize
                os.posix_fallocate(file.fileno(), 0, free - FLOOR_BYTES * trial.rng.randint(50, 95) // 100)
            why = until(lambda: _closed(trial), "the edge takes no more", 10)
            assert "free disk is below spool.min_free_bytes" in why, why
            trial.pass_time(1.0, 3.0)
            before = sum(one.acknowledged for one in trial.fleet.drivers)
            trial.pass_time(1.0, 2.0)
            taken = sum(one.acknowledged for one in trial.fleet.drivers) - before
            assert taken == 0, f"{taken} messages were taken below the floor"
            ballast.unlink()
            trial.fleet.fresh()
        assert trial.edge.process.poll() is None, "the edge ended"


def _closed(trial: Trial) -> str:
    """Why the edge is not ready; empty while it is."""
    status, why = trial.edge.admin("/readyz")
    return why if status == 503 else ""


@contextmanager
def failing_disk(trial: Trial) -> Iterator[Disk]:
    """A disk that knows what was synced; the edge is stopped when it begins, and runs again behind it."""
    trial.edge.kill()
    disk = Disk(trial)
    try:
        yield disk
    finally:
        disk.close()
    disk.launch_edge()
    trial.edge.await_ready()


def _sync_fails(trial: Trial, disk: Disk, then: str) -> None:
    since = _log_bytes(trial)
    disk.launch_edge(SYNC_FAILS=f"{trial.rng.randint(1, 60)},{then}")
    words = words_at_end(trial, since)
    assert ".open: Input/output error; the edge stops" in words, words


@fault(
    "EIO from fdatasync of the live segment, and what it did not write is gone: the edge ends, and the next start goes "
    "by what is on the disk.",
    quick=True,
)
def sync_fails(trial: Trial) -> None:
    with failing_disk(trial) as disk:
        for _ in range(3):
            _sync_fails(trial, disk, "gone")


@fault(
    "EIO from fdatasync, and what it did not write is still shown to the next start; then the power goes: nothing that "
    "only seemed to be on the disk was acknowledged."
)
def sync_fails_before_a_power_cut(trial: Trial) -> None:
    with failing_disk(trial) as disk, stopped(trial.load):  # or ClickHouse has it before the power goes
        for _ in range(3):
            _sync_fails(trial, disk, "shown")
            assert disk.note_failure(), "the sync that failed had nothing to write"
            disk.launch_edge()
            trial.edge.await_ready()
            trial.pass_time(1.0, 2.5)  # in which the cars send again what had no answer
            trial.edge.kill()
            disk.cut()
