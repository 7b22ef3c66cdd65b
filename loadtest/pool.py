"""Decides which device a user of this process may be: every process of the generator has devices of its own.

Two users that were the same device would end each other's sessions. A device that a user gave back is used again last,
and goes on above its last epoch; what is remembered of it dies with the process. Its key and
certificate are read when a user becomes that device.
"""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path
from typing import NamedTuple

from fleetsim.bundle import Device
from fleetsim.identities import Identities


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


class Lease(NamedTuple):
    """A device while a user is it. `number` is the same in every run: what happens to a vehicle depends on it."""

    number: int
    device: Device


class Pool:
    """The devices of process `index` of `processes`: every so-many-th of those that were prepared."""

    def __init__(self, devices: Path, index: int, processes: int) -> None:
        """Raises PoolError, BundleError."""
        if not 0 <= index < processes:
            raise PoolError(f"worker {index + 1} of {processes}: give the master --expect-workers with their number")
        self.memory = Memory()
        self._identities = Identities.open(devices)
        self._free = deque(range(index, len(self._identities), processes))
        self._directory = devices
        self._taken: list[int] = []

    def check(self, users: int) -> None:
        """Raises PoolError unless there is a device for each of so many users of this process."""
        if len(self._free) < users:
            raise PoolError(
                f"{self._directory} has {len(self._identities)} devices, of which {len(self._free)} are for this "
                f"process, too few for its {users} users: prepare more, or give fewer --users"
            )

    def take(self) -> Lease:
        """Raises PoolError when all are in use, BundleError."""
        self.check(1)
        number = self._free.popleft()
        self._taken.append(number)
        return Lease(number, self._identities[number])

    def any_of(self, rng: random.Random) -> Device:
        """One of those that somebody is now, or was."""
        return self._identities[rng.choice(self._taken or [0])]

    def give_back(self, lease: Lease) -> None:
        self._free.append(lease.number)
