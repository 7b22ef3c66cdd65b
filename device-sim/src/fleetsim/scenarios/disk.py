"""Decides what a simulated unit keeps over a reboot: its last epoch and its signed messages, in memory.

The journal of the reference agent survives a power cut of the machine; here the machine goes on, and it is the unit
that reboots, forgets or gets an old copy back. So its disk is an object that can be copied, emptied and exchanged.
"""

from fleetsim.outbox import Key


class Disk:
    """The store of one device. What is written is durable at once."""

    durable = 0

    def __init__(self, epoch: int = 0, kept: dict[Key, bytes] | None = None) -> None:
        self.epoch = epoch
        self.kept = dict(kept or {})

    def copy(self) -> "Disk":
        """What a backup of this moment holds."""
        return Disk(self.epoch, self.kept)

    def load(self, device: str) -> tuple[int, list[tuple[int, int, bytes]]]:
        """As `outbox.Store`."""
        return self.epoch, [(*key, self.kept[key]) for key in sorted(self.kept)]

    def open_epoch(self, device: str, epoch: int) -> int:
        """As `outbox.Store`."""
        self.epoch = epoch
        return 0

    def keep(self, device: str, epoch: int, seq: int, raw: bytes) -> int:
        """As `outbox.Store`."""
        self.kept[epoch, seq] = raw
        return 0

    def forget(self, device: str, epoch: int, seq: int) -> None:
        """As `outbox.Store`."""
        self.kept.pop((epoch, seq), None)
