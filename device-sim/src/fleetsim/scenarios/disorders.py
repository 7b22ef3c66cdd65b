"""Decides what goes wrong with honest units, and in which way each is then not what it seems.

A reboot, an answer that gets lost, hours without a network, a counter or a disk that is an old one, a clock that runs
wrong: from the gate they look like gaps, repetitions, late or used numbers. Every one is benign, and none may put its
unit into quarantine. Two look so much like an attack that the unit may be watched for it: `MAY_BE_WATCHED`.
"""

from collections.abc import Callable, Sequence
from functools import partial

from fleetsim.scenarios.device import Device
from fleetsim.scenarios.disk import Disk
from fleetsim.scenarios.world import World

MINUTE_S, HOUR_S = 60.0, 3600.0
REBOOTS, LOST_ANSWERS = 3, 5
# Gained or lost in an hour, in seconds: within a morning that is some tens of seconds.
DRIFT_S_PER_HOUR = 10.0

MAY_BE_WATCHED = frozenset({"lost_counter", "restored_backup"})

Befall = Callable[[World, Device, float, float], None]
"""Puts a disorder of one device into the calendar, between two virtual seconds."""


def reboot(world: World, device: Device, from_s: float, until_s: float) -> None:
    """The unit starts again, with a new epoch."""
    for _ in range(REBOOTS):
        world.at(world.rng.uniform(from_s, until_s), device.reboot)


def lost_answer(world: World, device: Device, from_s: float, until_s: float) -> None:
    """The gate has the message, the device does not know it and sends the same bytes again."""
    for _ in range(LOST_ANSWERS):
        world.at(world.rng.uniform(from_s, until_s), device.lose_next_answer)


def late_backlog(world: World, device: Device, from_s: float, until_s: float) -> None:
    """Awake without a network for a third of the time, and then everything at once."""
    begin_s = world.rng.uniform(from_s, from_s + (until_s - from_s) / 2)
    world.at(begin_s, device.wake)
    world.at(begin_s, device.lose_network)
    world.at(begin_s + (until_s - from_s) * world.rng.uniform(0.15, 0.33), device.find_network)


def lost_messages(world: World, device: Device, from_s: float, until_s: float) -> None:
    """Signed messages that were never sent are lost with a few cells of the flash: their numbers stay missing."""
    begin_s = world.rng.uniform(from_s, from_s + (until_s - from_s) * 0.7)

    def lose() -> None:
        for key in sorted(device.disk.kept)[1:-1:2]:
            device.disk.forget(device.bundle.name, *key)
        device.reboot()
        device.find_network()

    world.at(begin_s, device.wake)
    world.at(begin_s, device.lose_network)
    world.at(begin_s + (until_s - from_s) * 0.2, lose)


def lost_counter(world: World, device: Device, from_s: float, until_s: float) -> None:
    """A unit whose flash was erased: it begins at the first epoch, unless the gate tells it better."""
    world.at(world.rng.uniform(from_s + (until_s - from_s) / 4, until_s), lambda: device.reboot(Disk()))


def restored_backup(world: World, device: Device, from_s: float, until_s: float) -> None:
    """A workshop writes back what it read out a few reboots ago."""
    begin_s = world.rng.uniform(from_s, from_s + (until_s - from_s) / 3)
    end_s = world.rng.uniform(begin_s + (until_s - from_s) / 4, until_s)

    def back_up() -> None:
        backup = device.disk.copy()
        world.at(end_s, lambda: device.reboot(backup))

    world.at(begin_s, back_up)
    for _ in range(2):
        world.at(world.rng.uniform(begin_s, end_s), device.reboot)


def clock_drift(world: World, device: Device, from_s: float, until_s: float) -> None:
    """The clock gains or loses, until the gate tells the time again."""
    rate = world.rng.choice((-1, 1)) * world.rng.uniform(0.5, 1.0) * DRIFT_S_PER_HOUR / HOUR_S
    world.at(from_s, partial(device.drift, rate))


ALL: dict[str, Befall] = {
    "reboot": reboot,
    "lost_answer": lost_answer,
    "late_backlog": late_backlog,
    "lost_messages": lost_messages,
    "lost_counter": lost_counter,
    "restored_backup": restored_backup,
    "clock_drift": clock_drift,
}


def befall(world: World, what: str, indices: Sequence[int], from_s: float, until_s: float) -> None:
    """A disorder for each of these vehicles, and the truth of it; those that speak HTTPS are told apart."""
    for index in indices:
        device = world.devices[index]
        ALL[what](world, device, from_s, until_s)
        at_worst = "watched" if what in MAY_BE_WATCHED else "trusted"
        world.truth.befalls(device, f"{what}_{device.transport}", world.start_ms + from_s * 1000, at_worst=at_worst)
