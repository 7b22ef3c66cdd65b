"""Decides which device a user of this process may be: every process of the generator has devices of its own.

Two users that were the same device would end each other's sessions. A device that a user gave back is used again last,
and goes on above its last epoch; what is remembered of it dies with the process. A bundle is read when a user becomes
that device.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from fleetsim.bundle import Bundle, read_bundle


class PoolError(Exception):
    """There is no device for a user; the text says what to do."""


class Memory:
    """`fleetsim.outbox.Store` of a device that loses everything when its process ends: nothing is written, so
    nothing is waited for. A load test measures the gate's disk, not its own."""

    durable = 0

    def __init__(self) -> None:
        self._epochs: dict[str, int] = {}

    def load(self, device: str) -> tuple[int, list[tuple[int, int, bytes]]]:
        return self._epochs.get(device, 0), []

    def open_epoch(self, device: str, epoch: int) -> int:
        self._epochs[device] = epoch
        return self.durable

    def keep(self, device: str, epoch: int, seq: int, raw: bytes) -> int:
        return self.durable

    def forget(self, device: str, epoch: int, seq: int) -> None:
        pass


class Lease:
    """A device while a user is it. `number` is the same in every run: what happens to a vehicle depends on it."""

    def __init__(self, number: int, bundle: Bundle) -> None:
        self.number, self.bundle = number, bundle


class Pool:
    """The devices of process `index` of `processes`: every so-many-th bundle of the directory, in order of name."""

    def __init__(self, devices: Path, index: int, processes: int) -> None:
        """Raises PoolError."""
        if not 0 <= index < processes:
            raise PoolError(f"worker {index + 1} of {processes}: give the master --expect-workers with their number")
        try:
            names = sorted(path.name for path in devices.iterdir() if path.is_dir())
        except OSError as error:
            raise PoolError(f"--devices {devices}: {error.strerror}") from None
        self.memory = Memory()
        self._devices = devices
        self._free = deque(enumerate(names[index::processes]))
        self._stride, self._first = processes, index
        self._size = len(names)

    def check(self, users: int) -> None:
        """Raises PoolError unless there is a device for each of so many users of this process."""
        if len(self._free) < users:
            raise PoolError(
                f"{self._devices} has {self._size} devices, of which {len(self._free)} are this process's, too few for "
                f"its {users} users: enrol more, or give fewer --users"
            )

    def take(self) -> Lease:
        """Raises PoolError when all are in use, BundleError."""
        self.check(1)
        place, name = self._free.popleft()
        return Lease(self._first + place * self._stride, read_bundle(self._devices / name))

    def give_back(self, lease: Lease) -> None:
        self._free.append(((lease.number - self._first) // self._stride, lease.bundle.directory.name))
