"""The power goes: kill -9, and everything that was not synced is gone, in part or whole, or has become zeros.

kill -9 alone leaves what the kernel has in memory, so it cannot tell a missing fdatasync from one that is there. Here
the process notes what it syncs (`power/sitecustomize.py`), and after the kill its segments are put back to that: bytes
behind the last sync are cut at a random place, or turned to zeros up to it; names that no sync of their directory had
seen are undone. The checkpoint is SQLite's, whose own promise is taken on trust.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from fleetgate.fault import VARIABLE
from tests.faults.processes import REACHED_SECONDS, ended_by_kill
from tests.faults.registry import fault
from tests.faults.trial import Trial

HERE = Path(__file__).parent / "power"


class Disk:
    """What of the spool's segments is durable while the edge runs, and what a power cut leaves of them."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._segments = trial.spool / "segments"
        self._log = trial.directory / "syncs"
        self.taken_bytes = 0
        self._failed: dict[int, tuple[int, int]] = {}  # by inode, from where to where
        self._pinned: list[int] = []

    def launch_edge(self, **environment: str) -> None:
        """Starts the edge on what is there: all of it is durable by now."""
        self._sizes = {path.stat().st_ino: path.stat().st_size for path in self._segments.iterdir()}
        self._names = {path.name: path.stat().st_ino for path in self._segments.iterdir()}
        self._log.unlink(missing_ok=True)
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        self._trial.edge.launch(SYNC_LOG=str(self._log), PYTHONPATH=path, **environment)

    def note_failure(self) -> int:
        """After the edge ended because a sync failed: what that sync did not write goes with the power, whatever is
        synced later. How many bytes that are; they stay in the view of processes, see `power/sitecustomize.py`."""
        self._read_log()
        inode, (good, bad) = next(reversed(self._failed.items()))
        path = next(path for path in self._segments.iterdir() if path.stat().st_ino == inode)
        self._pinned.append(os.open(path, os.O_RDONLY))  # so that no other file gets this inode
        return bad - good

    def synced_bytes(self, path: Path) -> int:
        """How much of this segment is durable."""
        self._read_log()
        return self._sizes.get(path.stat().st_ino, 0)

    def _read_log(self) -> None:
        for line in self._log.read_bytes().splitlines():
            fact = json.loads(line)
            if "failed" in fact:
                self._failed[fact["inode"]] = (self._sizes.get(fact["inode"], 0), fact["failed"])
            elif "inode" in fact:
                self._sizes[fact["inode"]] = fact["size"]
            elif Path(fact["directory"]) == self._segments:
                self._take_names(fact["names"])

    def _take_names(self, names: dict[str, int]) -> None:
        """A file may have got the inode of a deleted one, of which it has no byte on the disk."""
        before = {inode: name for name, inode in self._names.items()}
        for name, inode in names.items():
            if Path(before.get(inode, name)).stem != Path(name).stem:
                self._sizes.pop(inode, None)
        self._names = names

    def cut(self) -> None:
        """After the edge was killed: what was not synced goes."""
        self._read_log()
        before = {inode: name for name, inode in self._names.items()}
        for path in list(self._segments.iterdir()):
            inode = path.stat().st_ino
            if Path(before.get(inode, "")).stem != path.stem:
                path.unlink()  # never under this number, or only in memory
                continue
            self._spoil(path, self._sizes.get(inode, 0))
            self._forget(path, inode)
            path.rename(path.with_name(before[inode]))

    def _forget(self, path: Path, inode: int) -> None:
        """What a failed sync did not write becomes zeros."""
        good, bad = self._failed.get(inode, (0, 0))
        bad = min(bad, path.stat().st_size)
        if good < bad:
            with path.open("r+b") as file:
                file.seek(good)
                file.write(bytes(bad - good))

    def close(self) -> None:
        for descriptor in self._pinned:
            os.close(descriptor)

    def _spoil(self, path: Path, synced_bytes: int) -> None:
        """What lies behind the last sync is there to a random place, and perhaps zeros behind that."""
        size, rng = path.stat().st_size, self._trial.rng
        kept = rng.choice((synced_bytes, rng.randint(synced_bytes, size)))
        self.taken_bytes += size - kept
        os.truncate(path, kept)
        if rng.random() < 0.3:
            os.truncate(path, size)


@fault("The power of the edge's machine goes, twice at random moments: all that was not synced is lost.", quick=True)
def power_cut(trial: Trial) -> None:
    disk = Disk(trial)
    trial.edge.kill()
    for _ in range(2):
        disk.launch_edge()
        trial.edge.await_ready()
        trial.pass_time(0.4, 1.5)
        trial.edge.kill()
        disk.cut()
    disk.launch_edge()
    trial.edge.await_ready()


@fault("The power goes between two steps of writing: a batch written and not synced, a segment renamed and not synced.")
def power_cut_at_points(trial: Trial) -> None:
    disk = Disk(trial)
    trial.edge.kill()
    for point in ("commit.written", "seal.renamed", "open.created", "seal.footer", "recover.sealed", "commit.written"):
        disk.launch_edge(**{VARIABLE: f"{point},{trial.rng.randint(2, 5) if 'recover' not in point else 1}"})
        assert ended_by_kill(trial.edge, REACHED_SECONDS), f"{point} was never reached"
        disk.cut()
    assert disk.taken_bytes, "nothing was lost: no power was cut"
    disk.launch_edge()
    trial.edge.await_ready()
